"""Where trajectories are executed: the protocol, the Ray adapter, and what a runner process is made of."""
