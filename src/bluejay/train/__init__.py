"""From token shards to a model."""
