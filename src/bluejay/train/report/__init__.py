"""Reports of a run: metrics, plots, the live view, sample texts and the profile."""
