"""A model -> how much of what it read it writes again, and which questions it had read before."""
