"""Functions on batches of texts: splitting, normalising, hashing, comparing, tokenizing."""
