"""The agent: one step, the trajectory loop, context policies, tool-call hygiene."""
