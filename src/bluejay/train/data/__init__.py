"""Token shards and pairs of texts as batches, and the held-out part."""
