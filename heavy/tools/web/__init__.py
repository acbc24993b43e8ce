"""The web for models: search and fetch, with nothing but public servers in reach."""
