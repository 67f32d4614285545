"""Training batches from token shards and from files of examples, and the held-out data."""
