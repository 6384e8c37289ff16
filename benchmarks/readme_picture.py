"""The picture in the README: questions of `hourllava demo`, nano's answers, and the moments it looked at.

    python benchmarks/readme_picture.py docs/images/ask.png --seed 7

Runs the demo (`hourllava demo --seed 7`) and draws the questions with the numbers of `--questions`, right or wrong.
"""

import argparse
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hourllava.clock import format_clock
from hourllava.evaluation.demo import Result, run_demo
from hourllava.world.drawing.render import render_frames
from hourllava.world.generate import generate_script

WIDTH, ROW_HEIGHT, HEADING, MARGIN = 1200, 150, 52, 20
FRAME_PIXELS = 128
TEXT_X, TEXT_CHARACTERS = MARGIN + FRAME_PIXELS + 24, 92
INK, MUTED, LINE = (28, 28, 34), (105, 105, 115), (222, 222, 226)
RIGHT, WRONG, LOOKED = (22, 128, 72), (186, 44, 44), (230, 126, 20)
COLOURS_IN_FILE = 128


def font(pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that every machine draws the same."""
    return ImageFont.load_default(pixels)


def draw_row(sheet: Image.Image, top: int, result: Result, frame: Image.Image, video_seconds: int) -> None:
    """One question: the frame the model looked at most, question, answer, and evidence on the video's time line."""
    draw = ImageDraw.Draw(sheet)
    sheet.paste(frame, (MARGIN, top + 8))
    draw.text((TEXT_X, top + 8), textwrap.shorten(result.question.question, TEXT_CHARACTERS), fill=INK, font=font(22))
    colour, verdict = (RIGHT, "right") if result.is_right else (WRONG, f"wrong: {result.question.answer}")
    answer = " ".join(result.text.split())
    draw.text((TEXT_X, top + 42), answer, fill=colour, font=font(28), stroke_width=0.4)
    width = draw.textlength(answer, font=font(28))
    draw.text((TEXT_X + width + 16, top + 50), verdict, fill=MUTED, font=font(18))
    bar_top, left, right = top + 92, TEXT_X, WIDTH - MARGIN
    draw.rounded_rectangle((left, bar_top, right, bar_top + 14), 4, fill=LINE)
    strongest = result.evidence[0]
    for span in result.evidence[::-1]:
        start, end = (left + (right - left) * t / video_seconds for t in (span.start_seconds, span.end_seconds))
        draw.rectangle((start, bar_top - 4, max(end, start + 4), bar_top + 18), fill=LOOKED)
    label = f"looked at {format_clock(strongest.start_seconds)} to {format_clock(strongest.end_seconds)}"
    place = left + (right - left) * strongest.start_seconds / video_seconds
    place = min(place, right - draw.textlength(label, font=font(17)))
    draw.text((place, bar_top + 24), label, fill=LOOKED, font=font(17))


def draw_picture(results: Sequence[Result], shown: Sequence[int], seed: int, video_seconds: int) -> Image.Image:
    """The questions with the numbers `shown`, below one line that says what is seen and how many are right."""
    script = generate_script(seed, video_seconds, split="test")
    sheet = Image.new("RGB", (WIDTH, HEADING + ROW_HEIGHT * len(shown)), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    num_right = sum(result.is_right for result in results)
    title = (
        f"$ hourllava demo --seed {seed}      {format_clock(video_seconds)} of video, watched once; "
        f"{num_right} of {len(results)} answers right, {len(shown)} shown"
    )
    draw.text((MARGIN, 16), title, fill=MUTED, font=font(20))
    for row, number in enumerate(shown):
        result, top = results[number - 1], HEADING + ROW_HEIGHT * row
        draw.line((MARGIN, top, WIDTH - MARGIN, top), fill=LINE)
        span = result.evidence[0]
        second = min(int((span.start_seconds + span.end_seconds) / 2), video_seconds - 1)
        pixels = np.asarray(render_frames(script, [second], FRAME_PIXELS))[0]
        draw_row(sheet, top, result, Image.fromarray(pixels), video_seconds)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="PNG")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 2, 6, 8], help="their numbers in the demo")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = run_demo(options.seed, options.minutes, Path(folder), "nano", print)
    picture = draw_picture(results, options.questions, options.seed, round(options.minutes * 60))
    picture.quantize(COLOURS_IN_FILE).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
