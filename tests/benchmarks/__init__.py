"""Side-by-side benchmarks of guardagent and its peers: ``python -m tests.benchmarks``."""
