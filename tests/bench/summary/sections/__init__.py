"""The tables of docs/benchmarks.md: one module a section, one entry a row."""
