"""The model: its configuration, its forward pass, and its weights on disk."""
