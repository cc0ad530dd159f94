"""Tests, in the order of the package; `faults` are the scripted failures."""
