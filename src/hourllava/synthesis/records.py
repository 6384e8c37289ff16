"""Stage `records`: the files of the data set, as `data prepare`, `train` and `data stats` read them.

OUT/jsons/videomarathon.json   training records of one question each, with evidence; answers by letter
OUT/jsons/questions.jsonl      the questions with all their fields
OUT/jsons/captions.jsonl       a line for each video: clips in six aspects, events, overall
OUT/jsons/dropped.jsonl        the questions that checks dropped: which check, and why
OUT/jsons/provenance.jsonl     question id -> keys of the rows that it was made from, url and licence of the video
OUT/jsons/videomarathon.parquet  with --format videomarathon: the published columns
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hourllava.choices import LETTERS, choice_prompt
from hourllava.data.records.models import QuestionRow, record_line, training_record
from hourllava.data.records.reading import arrow
from hourllava.data.records.writing import training_record_file
from hourllava.files import replacing
from hourllava.synthesis.candidates import Candidate
from hourllava.synthesis.checks.run import Ledger
from hourllava.synthesis.questions import Told
from hourllava.synthesis.shapes import ASPECTS

PUBLISHED_COLUMNS = ("id", "video", "URL", "data_source", "question_type", "question", "answer")
_ROWS_PER_GROUP = 20_000


class RecordWriter:
    """Writes the files of the data set, from `record_files`."""

    def __init__(self, files: ExitStack, folder: Path, *, published: bool) -> None:
        self._add_record = files.enter_context(training_record_file(folder / "videomarathon.json"))
        self._lines = {
            name: files.enter_context(_line_file(folder / f"{name}.jsonl"))
            for name in ("questions", "captions", "dropped", "provenance")
        }
        self._published = files.enter_context(_published_file(folder / "videomarathon.parquet")) if published else None

    def add_video(self, told: Told) -> None:
        """Write a video's captions."""
        self._lines["captions"](captions_line(told))

    def add_question(self, candidate: Candidate, seed: int, facts: dict[str, Any]) -> None:
        """Write a question that passed all checks.

        Args:
            candidate: the question.
            seed: of the order of options.
            facts: for the file of provenance.
        """
        row = candidate.row(seed)
        self._add_record(record_line(training_record(row)))
        self._lines["questions"](row.model_dump(exclude_defaults=True))
        terms = candidate.video.terms
        origin = {name: value for name, value in (("url", terms.url), ("licence", terms.licence)) if value}
        self._lines["provenance"]({"question_id": candidate.id} | facts | origin)
        if self._published is not None:
            self._published(published_row(row, terms.url))

    def add_dropped(self, candidate: Candidate, ledger: Ledger) -> None:
        """Write a question that a check dropped."""
        check, reason = ledger.dropped[candidate.id]
        fields = {"question_id": candidate.id, "video": candidate.video.name, "check": check, "reason": reason}
        fields["task"] = candidate.task
        asked = {"question": candidate.question, "answer": candidate.answer, "wrong": list(candidate.wrong)}
        self._lines["dropped"](fields | asked)


@contextmanager
def record_files(folder: Path, *, published: bool) -> Iterator[RecordWriter]:
    """The files of the data set; they are there, whole, when the block ends.

    Args:
        folder: `jsons` of the data set.
        published: whether the published columns are written, too; needs pyarrow.
    """
    with ExitStack() as files:
        yield RecordWriter(files, folder, published=published)


def captions_line(told: Told) -> dict[str, Any]:
    """A video's captions in the form of `captions.jsonl`; clips without a caption are left out."""
    return {
        "video": told.planned.video.name,
        "data_source": told.planned.video.data_source,
        "duration_seconds": told.planned.duration_seconds,
        "clips": [
            {"start_seconds": c.clip.start_seconds, "end_seconds": c.clip.end_seconds}
            | {aspect: c.texts[aspect] for aspect in ASPECTS}
            for c in told.captions
            if c.texts is not None
        ],
        "events": [
            {"start_seconds": e.start_seconds, "end_seconds": e.end_seconds, "title": e.title, "caption": e.caption}
            for e in told.events
        ],
        "overall": told.summary,
    }


def published_row(row: QuestionRow, url: str | None) -> dict[str, Any]:
    """A question in VideoMarathon's columns: options within the question, the answer by its letter."""
    question, answer, form = row.question, row.answer, "oe"
    if row.answer_index is not None:
        # The published question has the options as lines, and nothing after them.
        question = "\n".join(choice_prompt(row.question, row.options).split("\n")[:-1])
        answer, form = LETTERS[row.answer_index], "mc"
    task = (row.task or "").lower().replace(" ", "_")
    values = (
        row.question_id,
        row.video,
        url or "",
        row.data_source,
        f"{row.topic}/{task}/{form}",
        question,
        answer,
    )
    return dict(zip(PUBLISHED_COLUMNS, values))


@contextmanager
def _line_file(path: Path) -> Iterator[Any]:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield lambda fields: file.write(json.dumps(fields, ensure_ascii=False) + "\n")


@contextmanager
def _published_file(path: Path) -> Iterator[Any]:
    pa, pq = arrow()
    schema = pa.schema([(name, pa.string()) for name in PUBLISHED_COLUMNS])
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        waiting: list[dict[str, Any]] = []

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        def add(row: dict[str, Any]) -> None:
            waiting.append(row)
            if len(waiting) == _ROWS_PER_GROUP:
                flush()

        yield add
        if waiting:
            flush()


def facts_of(candidate: Candidate, told: Told, verdict_key: str | None) -> dict[str, Any]:
    """What a question was made from: the row with the writer's answer, the clips in evidence, the verifier's row."""
    parts = [
        c.clip.number
        for c in told.captions
        if any(c.clip.start_seconds < end and c.clip.end_seconds > start for start, end in candidate.evidence)
    ]
    found: dict[str, Any] = {"video": candidate.video.id, "content": told.planned.content}
    found |= {"questions_row": candidate.source_key} if candidate.source_key else {}
    found |= {"clips": parts} if parts else {}
    return found | ({"checks_row": verdict_key} if verdict_key else {})
