"""Data folders of benchmarks that are made from seeds: MarathonWorld's releases and needles.

    DATA/videos/NAME.world.json   a reference, drawn when it is watched; or NAME.mp4, NAME.webm, for other programs
    DATA/questions/PART.jsonl     a question row a line
    DATA/lmms_eval/               the tasks for lmms-eval, see `lmms_eval_task`

Making can be stopped at any moment; what is there stays, and the questions of a part are written at its end.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hourllava.data.records.loading import question_rows
from hourllava.data.records.models import QuestionRow
from hourllava.errors import ConfigError
from hourllava.evaluation.benchmarks.building import TableBuilder
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.marathonworld import add_row
from hourllava.evaluation.benchmarks.questions import QuestionTable
from hourllava.evaluation.scores import depth_bin
from hourllava.files import replacing
from hourllava.world.drawing.encode import encode_video
from hourllava.world.making.jobs import run_jobs, workers
from hourllava.world.reference import REFERENCE_SUFFIX, Reference, write_reference

Container = Literal["reference", "mp4", "webm"]
_SUFFIXES = (REFERENCE_SUFFIX, ".mp4", ".webm")


class Made(NamedTuple):
    """A video that can be made, and the questions about it.

    Attributes:
        name: of its file, without a suffix.
        reference: all that determines it.
        questions: about it; `video` is the name.
    """

    name: str
    reference: Reference
    questions: Sequence[QuestionRow]


def make_part(data: Path, part: str, videos: Iterable[Made], container: Container, processes: int = 1) -> None:
    """Make the videos and questions of a part, or what is missing of them.

    Args:
        data: the data folder; made if need be.
        part: its name.
        videos: all of them.
        container: reference for the library itself, mp4 or webm for other programs.
        processes: that make video files.

    Raises:
        ConfigError: `data` cannot be written.
        VideoError: a video cannot be written.
    """
    made = list(videos)
    suffix = REFERENCE_SUFFIX if container == "reference" else f".{container}"
    try:
        for folder in ("videos", "questions"):
            (data / folder).mkdir(parents=True, exist_ok=True)
        # A reference is not needed where a file has been encoded.
        accepted = _SUFFIXES if container == "reference" else (suffix,)
        missing = [
            (one.reference, data / "videos" / f"{one.name}{suffix}")
            for one in made
            if not any((data / "videos" / f"{one.name}{other}").exists() for other in accepted)
        ]
        with workers(processes) as pool:
            deque(run_jobs(_make_video, missing, pool, "video", num_done=len(made) - len(missing)), maxlen=0)
        if container != "reference":  # one file per video, so that nobody has to choose
            for one in made:
                (data / "videos" / f"{one.name}{REFERENCE_SUFFIX}").unlink(missing_ok=True)
        path = data / "questions" / f"{part}.jsonl"
        text = "".join(row.model_dump_json() + "\n" for one in made for row in one.questions)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{data} cannot be written: {error.strerror}; use a folder you may write to") from error


def _make_video(job: tuple[Reference, Path]) -> None:
    reference, path = job
    if path.name.endswith(REFERENCE_SUFFIX):
        write_reference(reference, path)
    else:
        encode_video(reference.script(), path, reference.size_pixels)


def read_parts(folder: DataFolder, benchmark: str, split: str, parts: Sequence[str]) -> QuestionTable:
    """The questions of some parts."""
    files = [path for part in parts for path in folder.find(f"questions/{part}.jsonl")[:1]]
    builder = TableBuilder(folder, benchmark, split, files, f"make them with hourllava eval make {benchmark}")
    for path in files:
        for number, row in enumerate(folder.rows(path, builder.problems), 1):
            builder.read(row, f"{path}, row {number}", partial(_add, builder))
    return builder.table()


def _add(builder: TableBuilder, record: Mapping[str, Any]) -> None:
    (row,), _ = question_rows(dict(record), "")
    seconds = row.duration_seconds or 0.0
    groups = {"length": length_name(seconds), "task": row.task, "topic": row.topic, "form": row.form}
    if row.template == "letter_colour" and row.evidence and seconds:
        groups["depth"] = depth_bin(sum(row.evidence[0]) / 2 / seconds)
    add_row(builder, row, groups)


def length_name(seconds: float) -> str:
    """A length for people: "30 min", "3 h"."""
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"


def rows_of(name: str, rows: Iterable[QuestionRow]) -> Iterator[QuestionRow]:
    """Question rows about the video of this name."""
    for row in rows:
        yield row.model_copy(update={"video": name})
