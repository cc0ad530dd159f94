"""Tests of the shims: real frameworks, and a real backend behind them."""
