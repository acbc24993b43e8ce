"""The Ray side: replica and runner actors, engines, bring-up of a local cluster."""
