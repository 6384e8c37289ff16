"""Synthesis: from videos to a data set of questions, answers and evidence, as VideoMarathon was made."""
