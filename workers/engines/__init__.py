"""Model servers behind replicas: one HTTP API, several engines. Each runs in a process of its own."""
