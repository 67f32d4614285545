"""What a build tells: the counts of every step, the data card, its plots."""
