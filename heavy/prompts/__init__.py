"""Prompts are data: templates here or beside a profile, chosen by the profile, filled in by `render`."""

from heavy.prompts.templates import render

__all__ = ["render"]
