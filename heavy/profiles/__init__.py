"""Profiles: how a model is served and spoken to. `schema` is the shape, `loader` reads the files."""
