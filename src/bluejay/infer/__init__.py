"""Inference: sampling, the key-value cache, and the engine that runs many requests at once."""
