"""Replicas on a Ray cluster: placement, gangs, and the controller that keeps what is wanted there."""
