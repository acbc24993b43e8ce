"""The simulated engine: the API with seeded timing, tokens, tool calls and mistakes, and no model.

For load and failure tests. Whatever a person may read in its output carries the word [simulated].
"""
