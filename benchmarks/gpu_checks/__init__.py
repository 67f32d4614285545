"""The checks that `benchmarks/gpu.py` runs."""
