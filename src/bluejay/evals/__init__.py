"""Evaluation: from a model to numbers that can be believed."""
