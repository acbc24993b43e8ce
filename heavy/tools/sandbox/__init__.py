"""Where generated code runs: one fresh python per call, in namespaces of its own."""
