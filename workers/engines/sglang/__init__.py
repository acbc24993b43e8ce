"""The `sglang` engine: its environment, its command line, and what its log says. Never imports sglang itself."""
