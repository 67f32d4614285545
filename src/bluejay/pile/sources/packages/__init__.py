"""Sources of documents in archives, and in packages that are downloaded by name and checked by hash."""
