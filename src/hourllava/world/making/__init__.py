"""Data sets of MarathonWorld: videos, pictures, records, needles and their tokenizer."""
