"""Watch a video once, ask it anything: memories, their files and cache, subtitles as text of a prompt."""
