"""Watching: from a video's frames to its memory, as a job that many can wait for."""
