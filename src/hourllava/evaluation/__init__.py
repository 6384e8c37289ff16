"""Benchmarks: questions about videos -> answers -> scores, tables and figures."""
