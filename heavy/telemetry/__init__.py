"""What is measured: names, traces, metrics, and what things cost."""
