"""The results of a build: the counts of every step, the data card, its plots."""
