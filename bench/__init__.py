"""Benchmarks: what hoso costs and how fast it is, measured beside others in one run."""
