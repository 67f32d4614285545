"""Every layout that a model can have on disk, read as one `StoredModel`, and the two that are written."""
