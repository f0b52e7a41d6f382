"""Commands around the pipeline: made-up data, checks, benchmarks."""
