"""Checks that drop questions: each says which, and why.

words       a question alone: its words, times and options
within      the questions of one video: duplicates and contradictions
across      the whole data set: guessing, length of options, balance of yes and no
verifying   what the verifier said
"""
