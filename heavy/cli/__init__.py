"""The `heavy` command: on top of everything, imported by nothing."""
