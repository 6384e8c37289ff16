"""Answers of a run in the files that other programs and leaderboards take: `hourllava eval export`.

lmms_eval    samples and results as lmms-eval writes them with --log_samples
vlmevalkit   a table with the column `prediction`, which VLMEvalKit scores
submission   the files that the benchmarks' own scripts and leaderboards take
command      which of them a benchmark has, and where they go
"""
