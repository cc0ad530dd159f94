"""What the benchmarks measure, one module per package."""
