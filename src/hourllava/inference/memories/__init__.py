"""Memories: what a video left behind, their files and cache, and their keys and values made ready for questions."""
