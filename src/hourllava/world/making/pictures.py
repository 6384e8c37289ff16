"""`hourllava world pictures`: MarathonWorld as single images, sets of images and texts, for the stages before videos.

    OUT/images/marathonworld/<name>.jpg, <name>-<k>.jpg   frames of short videos in which nothing moves
    OUT/jsons/image.json, images.json, text.json          training records in LLaVA's format, with several questions
    OUT/pictures.json                                     the settings; a run with other settings is refused

    hourllava data shard OUT/jsons/image.json --kind image --media OUT/images --out shards/image

Images are JPEG of quality 95 with full colour resolution: a 64-pixel frame takes 4 kB, with a mean error of 1.8 of 255.
With JPEG's usual halved colour resolution the error is 3.8, and 93 at edges. `data shard` stores the files unchanged.
The command can be stopped at any moment; started again, it ends with the same bytes. Pictures show only the split's
(colour, shape) combinations; texts mention all. In train, every second picture of objects is painted (`painting.py`).
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Literal, get_args

from PIL import Image
from pydantic import BaseModel, ConfigDict

from hourllava.choices import LETTERS, choice_prompt
from hourllava.data.records.models import PLACEHOLDER, Turn, record_line
from hourllava.data.records.writing import training_record_file
from hourllava.errors import ConfigError
from hourllava.files import replacing
from hourllava.world.captions import generate_captions
from hourllava.world.drawing.painting import painted
from hourllava.world.drawing.render import Renderer
from hourllava.world.generate import generate_script
from hourllava.world.making.jobs import run_folder, run_jobs, workers
from hourllava.world.making.records import SOURCE
from hourllava.world.questions import BUILDERS, generate_questions
from hourllava.world.questions.stills import (
    Exchange,
    Still,
    copy_exchange,
    describe_exchange,
    option_exchange,
    still_at,
    still_exchange,
    stills_exchange,
    text_exchange,
)
from hourllava.world.rng import Draws
from hourllava.world.script import GENERATOR, Generator, Script
from hourllava.world.vocabulary import SHAPES, SPLITS, Split

PictureKind = Literal["image", "images", "text"]
KINDS: tuple[PictureKind, ...] = get_args(PictureKind)
SETTINGS_NAME = "pictures.json"
SCRIPT_SECONDS = (12, 64)
NUM_IMAGES = (2, 5)  # of a record with several images
CARD_SHARE = 3  # one image in 3 is a card
PAINTED_SHARE = 2  # one single image of objects in 2 is painted; none in the test split
TASKS_ASKED = 2  # tasks tried per text; one question is taken
_SHAPE = re.compile(rf"\b(?:{'|'.join(SHAPES)})\b")
# Templates of questions that captions answer as exactly as the video.
ANSWERED_BY_CAPTIONS = {
    "backwards", "next_letter", "letter_between", "event_duration", "first_of_two", "first_of_these", "last_of_these",
    "place_at_start", "relative_at_start", "object_at_place", "colour_at_place", "shape_at_place", "object_did",
    "letter_colour", "partner", "interaction", "actor_by_letter", "shared_object", "which_appears",
    "which_never_appears", "object_appears", "next_event_of", "what_did", "slide_direction", "action_order",
    "action_order_video", "why_hop", "next_actor", "scene_of_letter", "scene_of_action", "scene_after", "scene_before",
    "event_order", "event_of_letter", "which_happened", "summary", "hidden_object",
}  # fmt: skip


class PictureSettings(BaseModel):
    """All settings that decide the bytes of a data set of pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    images: int = 1000
    multi_images: int = 1000
    texts: int = 1000
    questions: int = 5  # per record, at most
    seed: int = 0
    split: Split = "train"
    size_pixels: int = 64
    version: Literal[5] = 5  # changes with the bytes of the records
    generator: Generator = GENERATOR  # the version of scripts and drawings

    def count(self, kind: PictureKind) -> int:
        """The number of records of a kind."""
        return {"image": self.images, "images": self.multi_images, "text": self.texts}[kind]


class PictureRecord(BaseModel):
    """A conversation about images or texts; paths are relative to the folder `images/`."""

    model_config = ConfigDict(frozen=True)
    id: str
    data_source: str = SOURCE
    image: str | tuple[str, ...] | None = None
    conversations: tuple[Turn, ...]


def make_picture_settings(
    images: int, multi_images: int, texts: int, questions: int, seed: int, split: str, size_pixels: int
) -> PictureSettings:
    """Check the options of `hourllava world pictures`.

    Raises:
        ConfigError: an option has a value that is not allowed.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split is {split!r}; use one of: {', '.join(SPLITS)}")
    for name, number, low, high in (
        ("images", images, 0, 10_000_000),
        ("multi-images", multi_images, 0, 10_000_000),
        ("texts", texts, 0, 10_000_000),
        ("questions", questions, 1, 20),
        ("size-pixels", size_pixels, 16, 2048),
    ):
        if not low <= number <= high:
            raise ConfigError(f"--{name} is {number}; use {low} to {high}")
    return PictureSettings.model_validate(
        {
            "images": images, "multi_images": multi_images, "texts": texts, "questions": questions, "seed": seed,
            "split": split, "size_pixels": size_pixels,
        }
    )  # fmt: skip


def make_pictures(settings: PictureSettings, out: Path, processes: int = 2) -> None:
    """Make the images and records in `out`, or the missing ones.

    Raises:
        ConfigError: `out` cannot be written, holds other files or another run's files, or `processes` is below 1.
    """
    folders = (out / "images" / SOURCE, out / "jsons")
    with workers(processes) as pool, run_folder(out, SETTINGS_NAME, settings, folders):
        for kind in KINDS:
            jobs = [_Job(settings, out, kind, index) for index in range(settings.count(kind))]
            path = out / "jsons" / f"{kind}.json"
            if not jobs or path.exists():
                continue
            with training_record_file(path) as add_record:
                for line in run_jobs(_make_record, jobs, pool, kind, jobs_per_call=8):
                    add_record(line)
                os.sync()  # once for all images, before the records that name them


@dataclass(frozen=True)
class _Job:
    settings: PictureSettings
    out: Path
    kind: PictureKind
    index: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.settings.split}-{self.settings.seed}-{self.index:06}"


def _make_record(job: _Job) -> str:
    """Make a record's images; returns its line of JSON."""
    return record_line(_record(job))


def _record(job: _Job) -> PictureRecord:
    settings = job.settings
    draws = Draws("pictures", settings.seed, settings.split, job.kind, job.index)
    if job.kind == "text":
        (exchange,) = _distinct(_text_exchanges(settings.split, draws), 1)
        return PictureRecord(id=job.name, conversations=exchange_turns([_with_other_shapes(exchange, draws)], 0))
    count = 1 if job.kind == "image" else draws.between(*NUM_IMAGES)
    script, stills = _stills(settings.split, draws, count)
    if job.kind == "image":
        paint = Draws("painted", settings.seed, job.index)  # own draws: painting changes no other picture
        if settings.split == "train" and not stills[0].card and paint.below(PAINTED_SHARE) == 0:
            script, stills[0] = painted(script, stills[0], paint)
        # Every picture is described: complete descriptions teach the vision tower fastest.
        description = describe_exchange(stills[0], settings.split, draws)
        asked = chain([description], iter(lambda: still_exchange(stills[0], settings.split, draws), None))
        names: tuple[str, ...] = (f"{SOURCE}/{job.name}.jpg",)
    else:
        asked = chain(iter(lambda: stills_exchange(stills, settings.split, draws), None))
        names = tuple(f"{SOURCE}/{job.name}-{k}.jpg" for k in range(len(stills)))
    # Shuffled: if the description always came first, a model would describe whatever it is asked first.
    exchanges = draws.shuffled(_distinct(asked, settings.questions))
    renderer = Renderer(script, settings.size_pixels)
    for name, still in zip(names, stills):
        with replacing(job.out / "images" / name, durable=False) as temporary:
            picture = Image.fromarray(renderer.frame(still.time_seconds))
            picture.save(temporary, format="JPEG", quality=95, subsampling=0)
    image = names[0] if job.kind == "image" else names
    return PictureRecord(id=job.name, image=image, conversations=exchange_turns(exchanges, len(names)))


def _script(split: Split, draws: Draws) -> Script:
    return generate_script(draws.below(2**53), draws.between(*SCRIPT_SECONDS), split=split)


def _stills(split: Split, draws: Draws, count: int) -> tuple[Script, list[Still]]:
    """Stills at different times of one short video, in order of time."""
    script = _script(split, draws)
    found = [still for time in range(script.duration_seconds) if (still := still_at(script, time))]
    chosen: dict[int, Still] = {}
    while len(chosen) < count:
        wants_card = draws.below(CARD_SHARE) == 0
        pool = [still for still in found if (still.card is not None) == wants_card] or found
        still = draws.pick(pool)
        chosen[still.time_seconds] = still
    return script, [chosen[time] for time in sorted(chosen)]


def _text_exchanges(split: Split, draws: Draws) -> Iterator[Exchange]:
    """Questions without pictures: finding an option, copying a text, questions about descriptions and captions."""
    while True:
        kind = draws.below(8)
        if kind < 4:  # half: a model must tell options apart before multiple choice can teach it anything else
            yield option_exchange(split, draws)
            continue
        if kind > 5:
            yield from _about_captions(_script(split, draws), draws)
            continue
        _, (still,) = _stills(split, draws, 1)
        if kind == 4:
            yield copy_exchange(still.description, split, draws)
        else:
            yield text_exchange(still.description, still_exchange(still, split, draws), split, draws)


def _with_other_shapes(exchange: Exchange, draws: Draws) -> Exchange:
    """The exchange with its words for shapes permuted, everywhere in the same way.

    So the texts of both splits mention all 64 (colour, shape) combinations equally often. From texts about 48 of them a
    language model learns that the other 16 do not exist, and cannot name one that it sees.
    """
    others = dict(zip(SHAPES, draws.shuffled(SHAPES)))

    def renamed(text: str) -> str:
        return _SHAPE.sub(lambda match: others[match[0]], text)

    return replace(
        exchange,
        question=renamed(exchange.question),
        answer=renamed(exchange.answer),
        options=tuple(renamed(option) for option in exchange.options),
    )


def _about_captions(script: Script, draws: Draws) -> Iterator[Exchange]:
    """At most one question about a video that its captions answer."""
    captions = " ".join(event.caption for event in generate_captions(script).events)
    tasks = tuple(draws.sample(tuple(BUILDERS), TASKS_ASKED))  # all tasks would take ten times as long
    questions = [q for q in generate_questions(script, tasks=tasks) if q.template in ANSWERED_BY_CAPTIONS]
    if questions:
        question = draws.pick(questions)
        exchange = Exchange(question.template, question.question, question.answer, question.options)
        yield text_exchange(captions, exchange, script.split, draws)


def _distinct(exchanges: Iterator[Exchange], limit: int) -> list[Exchange]:
    """Up to `limit` exchanges with different questions; a picture may allow fewer."""
    found: dict[str, Exchange] = {}
    for exchange in islice(exchanges, 4 * limit):
        found.setdefault(exchange.question, exchange)
        if len(found) == limit:
            break
    return list(found.values())


def exchange_turns(exchanges: list[Exchange], num_images: int) -> tuple[Turn, ...]:
    """A record's conversation; the images come once, before the first question."""
    turns: list[Turn] = []
    marks = PLACEHOLDER.rstrip() * num_images + "\n" if num_images else ""
    for exchange in exchanges:
        asked, answer = exchange.question, exchange.answer
        if exchange.options:
            asked, answer = choice_prompt(asked, exchange.options), LETTERS[exchange.options.index(answer)]
        turns += [Turn(speaker="human", value=marks + asked), Turn(speaker="gpt", value=answer)]
        marks = ""
    return tuple(turns)
