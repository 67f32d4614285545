"""Checkpoints of a run, and the state that they record."""
