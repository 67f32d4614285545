"""A model -> what it memorised of its training data, and which test questions were in it."""
