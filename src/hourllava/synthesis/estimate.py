"""`--dry-run`: how many requests and tokens a run will take, and what they will cost. No model is asked.

If some videos of the folder are done, the estimate is measured: for each kind of request a straight line through the
done videos, tokens = a + b x clips, gives those of the others. So a run with `--limit 3` makes the estimate of all good
(a test holds it within 10 % of what a server counts). Without it, typical lengths of answers are assumed.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hourllava.data.records.statistics import short_number
from hourllava.data.records.taxonomy import TASKS, TOPICS
from hourllava.parts import parse_part
from hourllava.synthesis.clips import PlannedVideo
from hourllava.synthesis.command import SynthOptions, open_run
from hourllava.synthesis.frames import picture_size
from hourllava.synthesis.job import model_name
from hourllava.synthesis.models.spending import MILLION, Price
from hourllava.synthesis.prompting import Prompt
from hourllava.synthesis.questions import SUMMARY_TASK, task_sheet
from hourllava.synthesis.settings import SynthSettings
from hourllava.synthesis.videos import find_videos, load_terms

KINDS = {
    "clip_caption": "captioner", "events": "writer", "event_caption": "writer", "summary": "writer",
    "open_questions": "writer", "choice_questions": "writer", "verify_choice": "verifier", "verify_open": "verifier",
    "guess": "verifier",
}  # fmt: skip
"""Kinds of requests, and whom they ask."""

LETTERS_PER_TOKEN = 4.0
PIXELS_PER_TOKEN = 28 * 28  # Qwen's models
# Typical answers, in tokens. From published captions and from runs against MarathonWorld; yours will differ.
_CAPTION, _EVENT_CAPTION, _SUMMARY, _EVENT_LINE, _OPEN, _CHOICE = 450, 200, 400, 30, 60, 110
_EVENTS_PER_CLIP = 0.35
_EVIDENCE = 2 * _EVENT_CAPTION + 3 * _CAPTION + 5 * _EVENT_LINE  # of a question
_OBJECTIONS = 0.1  # of the verifier's answers


@dataclass(frozen=True)
class Amount:
    """Of requests.

    Attributes:
        calls, prompt_tokens, completion_tokens: expected.
    """

    calls: float = 0.0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def cost(self, price: Price) -> float:
        """By the price of a model."""
        return (self.prompt_tokens * price.prompt + self.completion_tokens * price.completion) / MILLION


@dataclass(frozen=True)
class Estimate:
    """What a run takes.

    Attributes:
        amounts: kind -> of all videos, those that are done included.
        num_measured: videos that are done.
        planned: all videos.
    """

    amounts: dict[str, Amount]
    num_measured: int
    planned: Sequence[PlannedVideo]

    @property
    def total(self) -> Amount:
        """Of all kinds."""
        return sum(self.amounts.values(), Amount())


def estimate(
    planned: Sequence[PlannedVideo],
    log: Path,
    settings: SynthSettings,
    prompts: Mapping[str, Prompt],
    kinds: Sequence[str],
) -> Estimate:
    """Estimate a run.

    Args:
        planned: its videos.
        log: of the calls that were made in the folder.
        settings, prompts: of the run.
        kinds: of requests that it will make.
    """
    measured = _measured(planned, log)
    done = {name for kind in measured.values() for name in kind}
    amounts = {}
    for kind in kinds:
        known = measured.get(kind, {})
        guesses = [_guess(kind, video, settings, prompts) for video in planned]
        if known:
            numbers = [len(video.clips) for video in planned]
            table = np.array([_row(known[v.video.id]) for v in planned if v.video.id in known])
            clips = np.array([len(v.clips) for v in planned if v.video.id in known], dtype=np.float64)
            lines = [_line(clips, column) for column in table.T]
            guesses = [
                known.get(video.video.id) or Amount(*(max(0.0, a + b * number) for a, b in lines))
                for video, number in zip(planned, numbers)
            ]
        amounts[kind] = sum(guesses, Amount())
    return Estimate(amounts, len(done), planned)


def _row(amount: Amount) -> list[float]:
    return [amount.calls, amount.prompt_tokens, amount.completion_tokens]


def _line(clips: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """(a, b) of the line a + b x that fits best; through 0 unless there are three different lengths or more."""
    if len(set(clips)) < 3:
        return 0.0, float(values.sum() / clips.sum())
    slope, start = np.polyfit(clips, values, 1)
    if slope < 0 or start < 0:
        return 0.0, float(values.sum() / clips.sum())
    return float(start), float(slope)


def _measured(planned: Sequence[PlannedVideo], log: Path) -> dict[str, dict[str, Amount]]:
    """Kind -> video -> what its requests took, by the log."""
    found: dict[str, dict[str, Amount]] = defaultdict(lambda: defaultdict(Amount))
    if not log.exists():
        return {}
    names = sorted((video.video.id for video in planned), key=len, reverse=True)
    spaced = {name: name.replace(" ", "-") for name in names}  # ids of questions have no blanks
    with log.open(encoding="utf-8") as file:
        for line in file:
            try:
                fields = json.loads(line)
                amount = Amount(1, fields["prompt_tokens"], fields["completion_tokens"])
                item, kind = fields["item"], fields["kind"]
            except (ValueError, KeyError):
                continue  # a fault, or a damaged line
            video = next((name for name in names if item.startswith((name, spaced[name]))), None)
            if video is not None:
                found[kind][video] += amount
    return found


def _guess(kind: str, video: PlannedVideo, settings: SynthSettings, prompts: Mapping[str, Prompt]) -> Amount:
    """Of one video, without any measurement."""
    clips = sum(not clip.is_unchanged for clip in video.clips)
    events = max(1.0, _EVENTS_PER_CLIP * len(video.clips))
    fixed = (len(prompts[kind].system) + len(prompts[kind].user)) / LETTERS_PER_TOKEN
    aspect = _CAPTION / 6
    told = events * (_EVENT_CAPTION + _EVENT_LINE) + _SUMMARY
    questions = settings.questions
    tasks = [task for task in questions.tasks if task != SUMMARY_TASK]
    each = questions.per_task * len(tasks)
    if kind == "clip_caption":
        height, width = picture_size(video, settings.frames.longest_side_pixels)
        seconds = sum(clip.end_seconds - clip.start_seconds for clip in video.clips if not clip.is_unchanged)
        frames = seconds * settings.frames.fps
        return Amount(clips, clips * fixed + frames * (height * width / PIXELS_PER_TOKEN + 3), clips * _CAPTION)
    if kind == "events":
        return Amount(1, fixed + len(video.clips) * (3 * aspect + 20), events * _EVENT_LINE)
    if kind == "event_caption":
        touched = clips / events + 1
        return Amount(events, events * (fixed + touched * _CAPTION), events * _EVENT_CAPTION)
    if kind == "summary":
        return Amount(1, fixed + told, _SUMMARY)
    form = kind.removesuffix("_questions").removeprefix("verify_")
    is_on = ("choice" if kind == "guess" else form) in questions.formats
    if not is_on:
        return Amount()
    if kind.endswith("_questions"):
        topics = [topic for topic in TOPICS if any(TASKS[task].topic == topic for task in tasks)]
        aspects = sum(len(task_sheet()[topic]["aspects"]) for topic in topics)
        prompt = len(topics) * (fixed + 150 + told + 20 * len(video.clips)) + aspects * len(video.clips) * aspect
        return Amount(len(topics), prompt, each * (_OPEN if form == "open" else _CHOICE))
    if kind != "guess":
        calls = each * settings.checks.agreements * (1 + _OBJECTIONS) if settings.checks.verifier else 0
        return Amount(calls, calls * (fixed + _EVIDENCE), calls * (30 if form == "open" else 6))
    calls = each * settings.checks.guesses if settings.checks.guessing else 0
    return Amount(calls, calls * (fixed + 60), calls * 6)


def run_estimate(options: SynthOptions) -> Iterator[str]:
    """`hourllava synth --dry-run`: lines for the user.

    Raises:
        ConfigError, DataError: as `run_synth`.
    """
    found = find_videos(options.videos, load_terms(options.terms), parse_part(options.part, "--shard"))[: options.limit]
    with open_run(options, found) as run:
        asyncio.run(run.make("clips"))
        planned = list(run.planned())
        spending, settings = run.spending, run.settings
        roles = {role: getattr(options.cast, role) for role in ("captioner", "writer", "verifier")}
        kinds = [kind for kind, role in KINDS.items() if roles[role] is not None]
        result = estimate(planned, run.folder.log, settings, run.prompts, kinds)
    hours = sum(video.duration_seconds for video in planned) / 3600
    yield f"{len(planned)} videos, {hours:.2f} hours, {sum(len(video.clips) for video in planned)} clips"
    if result.num_measured:
        yield f"by what {result.num_measured} videos of this folder took:"
    else:
        yield "a rough guess, because nothing was made in this folder yet; run with --limit 3 first for a better one:"
    yield f"{'request':17} {'model':28} {'calls':>9} {'read':>9} {'written':>9} {'cost':>9}"
    cost = 0.0
    for kind, amount in result.amounts.items():
        model = model_name(roles[KINDS[kind]])
        price = settings.prices.get(model)
        cost += amount.cost(price or Price())
        told = f"{amount.cost(price):.2f}" if price else "-"
        cells = (short_number(value) for value in (amount.calls, amount.prompt_tokens, amount.completion_tokens))
        yield f"{kind:17} {model[:28]:28} {' '.join(f'{cell:>9}' for cell in cells)} {told:>9}"
    total = result.total
    line = f"{total.prompt_tokens:,.0f} tokens read and {total.completion_tokens:,.0f} written in all"
    per_hour = (total.prompt_tokens + total.completion_tokens) / hours
    line += f", {short_number(per_hour)} for an hour of video; {short_number(spending.tokens)} are spent already"
    yield line + (f"; cost {cost:.2f}" if settings.prices else "")
