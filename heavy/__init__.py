"""Heavy: the open heavy-mode server. See docs/architecture.md for one run walked through these rooms."""

__version__ = "0.1.0"
