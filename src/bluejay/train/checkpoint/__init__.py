"""Checkpoints on disk, and the state of a run that they hold."""
