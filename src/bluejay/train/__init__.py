"""Training and fine-tuning of a GPT from token shards, on one process or many."""
