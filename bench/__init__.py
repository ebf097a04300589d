"""Benchmarks: the speed and the resources of hoso, measured beside other tools in one run."""
