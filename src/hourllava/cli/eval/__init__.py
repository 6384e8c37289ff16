"""`hourllava eval`: benchmarks."""
