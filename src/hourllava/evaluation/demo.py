"""`hourllava demo`: make an hour of new video, watch it once, and ask ten questions with known answers.

    OUT/world-<seed>.mp4   the video
    OUT/world-<seed>.png   video, questions, answers and the moments that the model looked at, in one picture

The video comes from MarathonWorld's test split, whose objects and phrasings training never shows. The kinds of
questions are fixed (`PROGRAM`), so scores of different seeds can be compared.
"""

import contextlib
import secrets
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hourllava.clock import format_clock
from hourllava.errors import ConfigError
from hourllava.evaluation.demo_picture import Answered, demo_picture
from hourllava.files import replacing
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.memory import Memory
from hourllava.inference.questions.evidence import describe_spans
from hourllava.world.drawing.encode import encode_video
from hourllava.world.generate import MAX_SECONDS, generate_script
from hourllava.world.questions import Question, generate_questions
from hourllava.world.questions.draft import NUM_OPTIONS, Format
from hourllava.world.script import Script
from hourllava.world.vocabulary import COLOURS, OCCASIONS, PLACES, SCENES

MIN_SECONDS = 60
MAX_ANSWER_TOKENS = 32
NEXT = """\
Ask about a video of your own:
    hourllava ask holiday.mp4 "What happens?"
nano was trained on MarathonWorld only, so its answers about real video mean nothing.
For real video, use a published checkpoint on a GPU:
    hourllava ask holiday.mp4 "What happens?" --model jylins/hourllava-qwen25-3b-s3"""

_MAX_SEED = 10**6  # random seeds stay below, so that they are easy to type
_TRIES = 40  # questions made per task to find one of the wanted template
_TIMES_SHOWN = 3
_WIDTH = 110


@dataclass(frozen=True)
class Item:
    """One question of the program. `template` is a key of phrasings.json; one guess in `num_answers` is right."""

    task: str
    format: Format
    template: str
    num_answers: int = NUM_OPTIONS


PROGRAM = (
    Item("Object Attribute", "open", "letter_colour", len(COLOURS)),  # the needle: a card of 1 to 3 seconds
    Item("Key Event Extraction", "open", "event_of_letter", len(OCCASIONS) * len(SCENES)),  # another card
    Item("Scene Recognition", "choice", "scene_of_letter"),  # and a third card
    Item("Temporal Perception", "choice", "part_of_video"),
    Item("Temporal Order", "open", "first_of_two", 2),
    Item("Spatial Perception", "open", "place_at_start", len(PLACES)),
    Item("Object Existence", "open", "object_appears", 2),
    Item("Action Recognition", "choice", "what_did"),
    Item("Action Sequence", "choice", "action_order"),
    Item("Overall Summarization", "choice", "summary"),
)
"""Ten tasks from all six topics. Five are open-ended; five need a long stretch of the video."""


@dataclass(frozen=True)
class Result(Answered):
    """A question of the program and the model's answer."""

    item: Item


def run_demo(seed: int | None, minutes: float, out: Path, model_name: str, say: Callable[[str], None]) -> list[Result]:
    """Make a video, watch it, ask the program's questions, draw the picture.

    Args:
        seed: seed of the video; None draws a random one.
        minutes: length of the video, 1 to 1,440. Short videos do not allow every task; those are left out.
        out: folder for the video and the picture.
        model_name: see `HourLlava.from_pretrained`.
        say: called with each block of lines that the user should read.

    Raises:
        ConfigError: `minutes` is out of range, or the folder cannot be made.
        VideoError: the video cannot be written.
    """
    if not MIN_SECONDS <= minutes * 60 <= MAX_SECONDS:
        raise ConfigError(f"--minutes is {minutes:g}; use {MIN_SECONDS // 60} to {MAX_SECONDS // 60}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out} cannot be made ({error.strerror}); choose another folder with --out") from error
    duration_seconds = round(minutes * 60)
    seed = secrets.randbelow(_MAX_SEED) if seed is None else seed
    video, picture = out / f"world-{seed}.mp4", out / f"world-{seed}.png"

    engine = HourLlava.from_pretrained(model_name)
    say(f"Making a new video of {format_clock(duration_seconds)}; --seed {seed} makes the same one again.")
    started = time.perf_counter()
    script = generate_script(seed, duration_seconds, split="test")
    encode_video(script, video, progress=True)
    made = time.perf_counter()
    memory = engine.watch(video)
    watched = time.perf_counter()
    say(f"Made in {made - started:.0f} s: {video}\nWatched {memory.num_frames} frames in {watched - made:.0f} s.")

    results = []
    for result in answers_to(engine, memory, program_questions(script)):
        results.append(result)
        say(f"\n{describe_result(result, len(results))}")
    asked = time.perf_counter()
    num_right = sum(result.is_right for result in results)
    heading = f"{format_clock(duration_seconds)} of video, {len(results)} questions, {num_right} right"
    foot = (
        f"hourllava demo --seed {seed}   |   {model_name} watched {memory.num_frames:,} frames in "
        f"{watched - made:.0f} s and answered in {asked - watched:.0f} s"
    )
    with replacing(picture) as temporary:
        demo_picture(script, results, heading, foot).save(temporary, format="PNG", optimize=True)
    say(
        f"\n{num_right} of {len(results)} answers are right, in {asked - watched:.0f} s. Guessing gives "
        f"{expected_by_guessing(results):.1f} on average.\nAll of it in one picture: {picture}\n\n{NEXT}"
    )
    return results


def program_questions(script: Script) -> list[tuple[Item, Question]]:
    """The program's questions about a video; tasks that a short video does not allow are left out."""
    asked = []
    for item in PROGRAM:
        questions = generate_questions(script, per_task=_TRIES, tasks=(item.task,), formats=(item.format,))
        asked += [(item, question) for question in questions if question.template == item.template][:1]
    return asked


def answers_to(engine: HourLlava, memory: Memory, asked: Sequence[tuple[Item, Question]]) -> Iterator[Result]:
    """Open-ended questions are answered in words, all together; multiple choice by the likeliest option."""
    with contextlib.ExitStack() as stack:
        streams = [
            None
            if question.options
            else stack.enter_context(engine.stream(memory, question.question, max_new_tokens=MAX_ANSWER_TOKENS))
            for _, question in asked
        ]
        for (item, question), stream in zip(asked, streams, strict=True):
            if stream is None:
                choice = engine.choose(memory, question.question, question.options)
                yield Result(question, choice.option, choice.evidence, item)
            else:
                yield Result(question, stream.answer.text, stream.answer.evidence, item)


def expected_by_guessing(results: Sequence[Result]) -> float:
    """The expected number of right answers of somebody who knows the world but has not seen the video."""
    return sum(1 / result.item.num_answers for result in results)


def describe_result(result: Result, number: int) -> str:
    """Lines for people: question, options, answer, truth, where the model looked, where the answer was shown."""
    question = result.question
    shown = [f"{format_clock(start)}-{format_clock(end)}" for start, end in question.evidence]
    more = f" and {len(shown) - _TIMES_SHOWN} more" if len(shown) > _TIMES_SHOWN else ""
    lines = [f"{number:2}. {question.task}", *_indented("", question.question)]
    for option in question.options:
        lines += _indented("  - ", option)
    lines += _indented(f"{'RIGHT' if result.is_right else 'wrong':<11}", result.line)
    lines += _indented(f"{'truth':<11}", question.answer)
    lines += _indented(f"{'looked at':<11}", describe_spans(list(result.evidence)))
    lines += _indented(f"{'shown at':<11}", ", ".join(shown[:_TIMES_SHOWN]) + more)
    return "\n".join(lines)


def _indented(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=f"    {label}", subsequent_indent=" " * (4 + len(label)))
