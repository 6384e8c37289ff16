"""The picture that `hourllava demo` ends with: the video as a strip of frames, and below it, question by question, the
answer and the moments that the model looked at, on the strip's time axis.

Lengths are in pixels.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from hourllava.clock import format_clock
from hourllava.evaluation.scores import is_right
from hourllava.inference.questions.evidence import Span
from hourllava.world.drawing.render import render_frames
from hourllava.world.questions import Question
from hourllava.world.script import Script

WIDTH, MARGIN = 1600, 40
AXIS_LEFT, AXIS_RIGHT = 820, WIDTH - MARGIN
STRIP_TOP, STRIP_FRAMES = 124, 10
FRAME = (AXIS_RIGHT - AXIS_LEFT) // STRIP_FRAMES
ROWS_TOP, ROW = STRIP_TOP + FRAME + 48, 98
FOOT = 64
TEXT_LEFT = MARGIN + FRAME + 20
QUESTION_CHARACTERS, QUESTION_LINES, ANSWER_CHARACTERS = 66, 2, 48
BAR = 16
LEAST_MARK = 5  # a second of an hour is narrower than a line

PAPER, INK, MUTED, LINE = (255, 255, 255), (28, 28, 34), (105, 105, 115), (222, 222, 226)
RIGHT, WRONG, LOOKED = (22, 128, 72), (186, 44, 44), (230, 126, 20)


@dataclass(frozen=True)
class Answered:
    """A question, the model's answer, and the moments that the model looked at, strongest first."""

    question: Question
    text: str
    evidence: Sequence[Span]

    @property
    def is_right(self) -> bool:
        """Whether the answer equals the truth; case and a full stop at the end do not count."""
        return is_right(self.text, self.question.answer)

    @property
    def line(self) -> str:
        """The answer in one line."""
        return " ".join(self.text.split()) or "(nothing)"


def demo_picture(script: Script, answered: Sequence[Answered], heading: str, foot: str) -> Image.Image:
    """The picture, RGB.

    Args:
        script: of the video.
        answered: the questions, one row each.
        heading: one line above the strip.
        foot: one line below the rows.
    """
    picture = Image.new("RGB", (WIDTH, ROWS_TOP + ROW * len(answered) + FOOT), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, 34), heading, fill=INK, font=_font(36))
    _draw_strip(picture, script)
    for number, row in enumerate(answered):
        _draw_row(picture, ROWS_TOP + ROW * number, script, row)
    draw.text((MARGIN, picture.height - 42), foot, fill=MUTED, font=_font(19))
    return picture


def _font(pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that every machine draws the same."""
    return ImageFont.load_default(pixels)


def _frame_at(script: Script, second: float) -> Image.Image:
    (frame,) = render_frames(script, [min(int(second), script.duration_seconds - 1)], FRAME)
    return Image.fromarray(frame)


def _draw_strip(picture: Image.Image, script: Script) -> None:
    """Frames from the middle of each tenth of the video, and times below them; a legend to the left."""
    draw = ImageDraw.Draw(picture)
    for number in range(STRIP_FRAMES):
        second = (number + 0.5) * script.duration_seconds / STRIP_FRAMES
        picture.paste(_frame_at(script, second), (AXIS_LEFT + number * FRAME, STRIP_TOP))
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        place = AXIS_LEFT + share * (AXIS_RIGHT - AXIS_LEFT)
        time = format_clock(share * script.duration_seconds)
        draw.text((place, STRIP_TOP + FRAME + 8), time, fill=MUTED, font=_font(17), anchor=anchor)
    _draw_looked(draw, MARGIN, MARGIN + 30, STRIP_TOP + 12)
    draw.text((MARGIN + 46, STRIP_TOP + 10), "the model looked here", fill=INK, font=_font(19))
    _draw_shown(draw, MARGIN, MARGIN + 30, STRIP_TOP + 46)
    draw.text((MARGIN + 46, STRIP_TOP + 44), "the answer is shown here", fill=INK, font=_font(19))


def _draw_row(picture: Image.Image, top: int, script: Script, row: Answered) -> None:
    """The frame that the model looked at most, question, answer, and all moments on the time axis."""
    draw = ImageDraw.Draw(picture)
    draw.line((MARGIN, top, WIDTH - MARGIN, top), fill=LINE)
    if row.evidence:
        strongest = row.evidence[0]
        middle = (strongest.start_seconds + strongest.end_seconds) / 2
        picture.paste(_frame_at(script, middle), (MARGIN, top + (ROW - FRAME) // 2))
    lines = textwrap.wrap(row.question.question, QUESTION_CHARACTERS, max_lines=QUESTION_LINES, placeholder=" ...")
    draw.multiline_text((TEXT_LEFT, top + 10), "\n".join(lines), fill=INK, font=_font(19), spacing=5)
    colour, verdict = (RIGHT, "right") if row.is_right else (WRONG, f"wrong: {row.question.answer}")
    answer, verdict = (textwrap.shorten(text, ANSWER_CHARACTERS, placeholder=" ...") for text in (row.line, verdict))
    place = (TEXT_LEFT, top + 62)
    draw.text(place, answer, fill=colour, font=_font(23), stroke_width=0.4)
    draw.text((place[0] + draw.textlength(answer, _font(23)) + 14, top + 66), verdict, fill=MUTED, font=_font(17))

    bar_top = top + (ROW - BAR) // 2
    draw.rounded_rectangle((AXIS_LEFT, bar_top, AXIS_RIGHT, bar_top + BAR), 4, fill=LINE)
    for span in row.evidence:
        _draw_looked(draw, *_on_axis(script, span.start_seconds, span.end_seconds), bar_top)
    for start, end in row.question.evidence:
        _draw_shown(draw, *_on_axis(script, start, end), bar_top)


def _on_axis(script: Script, start_seconds: float, end_seconds: float) -> tuple[float, float]:
    """Left and right end of a span, at least `LEAST_MARK` wide."""
    left, right = (
        AXIS_LEFT + (AXIS_RIGHT - AXIS_LEFT) * min(second / script.duration_seconds, 1)
        for second in (start_seconds, end_seconds)
    )
    short = max(0.0, LEAST_MARK - (right - left)) / 2
    return left - short, right + short


def _draw_looked(draw: ImageDraw.ImageDraw, left: float, right: float, top: int) -> None:
    draw.rectangle((left, top, right, top + BAR), fill=LOOKED)


def _draw_shown(draw: ImageDraw.ImageDraw, left: float, right: float, top: int) -> None:
    draw.rectangle((left - 3, top - 5, right + 3, top + BAR + 5), outline=INK, width=2)
