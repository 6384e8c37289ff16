"""Watching and asking: the engine, memories with their files and cache, evidence, subtitles."""
