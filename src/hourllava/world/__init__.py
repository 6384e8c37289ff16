"""MarathonWorld: a procedural world of long videos whose every answer is known.

    script = generate_script(seed=1, duration_seconds=3600)
    frames = render_frames(script, range(3600), size_pixels=64)  # uint8 [3600, 64, 64, 3]
    questions = generate_questions(script)
    captions = generate_captions(script)
    encode_video(script, Path("hour.mp4"))

See docs/world.md.
"""

from hourllava.world.captions import Captions, generate_captions
from hourllava.world.drawing.encode import encode_video
from hourllava.world.drawing.render import Renderer, render_frames
from hourllava.world.generate import DIFFICULTIES, Density, generate_script
from hourllava.world.questions import Question, generate_questions
from hourllava.world.script import Script, Shown, screen_log

__all__ = [
    "DIFFICULTIES",
    "Captions",
    "Density",
    "Question",
    "Renderer",
    "Script",
    "Shown",
    "encode_video",
    "generate_captions",
    "generate_questions",
    "generate_script",
    "render_frames",
    "screen_log",
]
