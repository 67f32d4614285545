"""Models -> figures: tasks, statistics, comparisons and reports."""
