"""Frozen domain types, ids, errors and small protocols. The leaf: imports nothing else of Heavy."""
