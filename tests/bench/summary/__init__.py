"""Writes docs/benchmarks.md from the results of all benchmarks."""
