"""Abacus: the small INT4 model of our own: its tasks, training, export and evaluation.

Everything that needs torch lives in its own environment (`requirements.lock`); `tasks`, `chat`,
`answers`, `prompting` and `scope` need the standard library (and jinja2 for the aggregation prompt) only,
so the control plane can use them.
"""
