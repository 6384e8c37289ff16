"""Watch a video on one day, save its memory, and ask about it on another, without the video.

Run it: python examples/save_and_load_a_memory.py lecture.mp4 lecture.safetensors
"""

import sys
from pathlib import Path

from hourllava import HourLlava, Memory

video, file = sys.argv[1:]
model = HourLlava.from_pretrained("nano")
if not Path(file).exists():
    model.watch(video).save(file)

memory = Memory.load(file)
memory.check_fits(model.encoder)  # a memory belongs to the vision tower that made it
print(f"{memory.num_frames} frames, {memory.duration_seconds:.0f} s, {memory.num_bytes / 1e6:.1f} MB")
print(model.ask(memory, "What happens?", max_new_tokens=32).text)
