"""The `sglang` engine: its environment, its command line, what its log says. Never imports sglang."""
