"""Evaluation on the same rollouts: datasets, graders, statistics, reports; on top of client and batch."""
