"""Watching and asking: the engine (`engine`), the thread that owns the device (`scheduler`), and its rooms.

`memories` what a video left behind, `rows` answers being written, `questions` prompts and answers, `watching` from
frames to a memory.
"""
