"""Benchmarks: each measures a stage beside its limit and its peers, in one run."""
