"""Training batches from token shards and from pairs of prompt and completion, and the held-out data."""
