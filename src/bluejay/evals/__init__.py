"""Models -> figures: tasks, statistics, comparisons and reports, without a network."""
