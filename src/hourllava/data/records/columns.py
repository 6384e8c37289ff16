"""Reads the columns of question files by their usual names, and their cells, also those without a value or text.

A column without a known meaning, or with a cell of an unknown form (`duration: "short"`), is not used and is reported;
the question row stays. A question row is refused if its question, answer, options or video cannot be read.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from hourllava.choices import LETTERS
from hourllava.data.records.canonical import (
    IMAGE,
    TURN_FIELDS,
    canonical_record,
    is_conversation,
    is_missing,
    media_names,
)
from hourllava.data.records.options import Format, find_options, option_index, resolve, without_letters
from hourllava.data.records.taxonomy import find_task, find_topic
from hourllava.errors import DataError

# Names of the same column in published files; the first that has a value counts.
_COLUMNS = {
    "question_id": ("question_id", "qid", "id", "uid", "key"),
    # Video-MME has a number in `video_id` and the file's name in `videoID`.
    "video": ("video", "videos", "video_path", "video_name", "videoid", "video_id", "vid", "video_file"),
    "data_source": ("data_source", "source", "dataset", "video_source"),
    "question": ("question", "query", "q", "prompt", "problem"),
    "answer": ("answer", "a", "response", "ground_truth", "gt", "answer_text", "correct_answer"),
    "answer_index": ("answer_index", "answer_id", "answer_idx", "correct_index", "label"),
    "options": ("options", "choices", "candidates", "answer_choices"),
    "task": ("task", "task_type", "question_type", "question_category", "sub_task", "category", "type"),
    "topic": ("topic", "dimension", "aspect", "main_task"),
    "form": ("form",),
    "format": ("format", "question_format", "qa_type", "answer_type"),
    "template": ("template",),
    "evidence": ("evidence", "time_reference", "evidence_spans"),
    "duration_seconds": ("duration_seconds", "duration", "video_duration", "length", "video_length"),
    "split": ("split",),
    "conversations": TURN_FIELDS,
}
_OPTION_COLUMN = re.compile(r"(?:(?:option|choice|answer_choice)_?([a-z]|\d{1,2})|a_?(\d{1,2}))", re.IGNORECASE)
_FORMATS: dict[str, Format] = {
    **dict.fromkeys(("mc", "mcq", "mcqa", "choice", "multichoice", "multiplechoice", "multiplechoiceqa"), "choice"),
    **dict.fromkeys(("oe", "oeq", "oeqa", "open", "openended", "openendedqa", "freeform"), "open"),
}


def question_fields(record: dict[str, Any], default_id: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The fields of a `QuestionRow` for each question of a record of any form, and its unused columns.

    Raises:
        ValueError, DataError: it cannot be mapped; the first line of the message says why.
    """
    columns = _Columns(record)
    if is_conversation(record):
        rows = list(_of_conversation(record, columns, default_id))
    elif columns.has("question"):
        rows = [_of_question(columns, default_id)]
    else:
        raise ValueError("a record has neither a question nor a conversation")
    return rows, columns.unused()


def media_named(record: Any) -> tuple[list[str], str | None]:
    """The media paths of a record of any form, and its data source; none if they cannot be read."""
    if not isinstance(record, dict):
        return [], None
    try:
        columns = _Columns(record)
        source = columns.get("data_source")
        names = media_names(canonical_record(record)) if is_conversation(record) else [_video(columns)]
    except (ValueError, DataError):
        return [], None
    return names, source if isinstance(source, str) else None


def told_format(record: dict[str, Any]) -> Format | None:
    """Open-ended or multiple choice, if a column of the record names it.

    Raises:
        ValueError: two columns contradict each other.
    """
    return _format(_Columns(record))


def told_seconds(record: Any) -> float | None:
    """The length of a question row's video in seconds, if the row has it."""
    if not isinstance(record, dict) or is_conversation(record):
        return None
    return _seconds(_Columns(record).get("duration_seconds"))


def id_field(record: dict[str, Any]) -> str | None:
    """The field with a record's id; None without one."""
    names = ("id",) if is_conversation(record) else _COLUMNS["question_id"]
    return next((name for name in names if not is_missing(record.get(name))), None)


class _Columns:
    """The cells of a record by their meaning; a cell that was read counts as used."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._record = record
        self._names: dict[str, str] = {}
        for name in record:
            if not is_missing(record[name]):
                self._names.setdefault(name.lower(), name)
        self._used: set[str] = set()

    def has(self, target: str) -> bool:
        return any(alias in self._names for alias in _COLUMNS[target])

    def get(self, target: str) -> Any:
        """The cell of the first column with this meaning and a value; None if there is none."""
        for alias in _COLUMNS[target]:
            if alias in self._names:
                self._used.add(self._names[alias])
                return self._record[self._names[alias]]
        return None

    def all(self, target: str) -> list[Any]:
        names = [self._names[alias] for alias in _COLUMNS[target] if alias in self._names]
        self._used.update(names)
        return [self._record[name] for name in names]

    def options(self) -> dict[str, Any]:
        """Label -> cell of options in columns of their own: `option_a`, `choice1`, `a0`, ..."""
        found: dict[str, str] = {}
        for name in self._record:
            if match := _OPTION_COLUMN.fullmatch(name):
                label = (match[1] or match[2]).upper()
                if label in found:
                    raise ValueError(f"columns {found[label]!r} and {name!r} are the same option")
                found[label] = name
        if len(found) < 2:
            return {}
        self._used.update(found.values())
        labels = sorted(found, key=lambda label: (not label.isdigit(), int(label) if label.isdigit() else 0, label))
        return {label: self._record[found[label]] for label in labels}

    def forget(self, target: str) -> None:
        """Count the column of this meaning as unused: its cell has an unknown form."""
        self._used.difference_update(self._names.get(alias, "") for alias in _COLUMNS[target])

    def unused(self) -> list[str]:
        return [name for name in self._record if name not in self._used and not is_missing(self._record[name])]


def _common(columns: _Columns, default_id: str, video: str) -> dict[str, Any]:
    """The fields that all questions of a record share."""
    source = columns.get("data_source")
    if source is not None and not isinstance(source, str):
        raise ValueError(f"data_source is no text: {source!r:.40}")
    fields: dict[str, Any] = {
        "question_id": _id(columns.get("question_id"), default_id),
        "video": video,
        "data_source": source or PurePosixPath(video).parts[0],
    }
    words = [word for cell in [*columns.all("task"), *columns.all("topic")] for word in _path_parts(cell)]
    task = next((task for task in map(find_task, words) if task is not None), None)
    fields["task"] = task.name if task else None
    fields["topic"] = task.topic if task else next((topic for topic in map(find_topic, words) if topic), None)
    fields["form"] = task.form if task else None
    columns.get("form")  # follows from the task
    for name in ("template", "split"):
        cell = columns.get(name)
        if isinstance(cell, str):
            fields[name] = cell
        elif cell is not None:
            columns.forget(name)
    duration = columns.get("duration_seconds")
    fields["duration_seconds"] = _seconds(duration)
    if fields["duration_seconds"] is None:
        columns.forget("duration_seconds")
    evidence = _spans(columns.get("evidence"))
    fields["evidence"] = evidence or ()
    if evidence is None:
        columns.forget("evidence")
    return fields


def _of_conversation(record: dict[str, Any], columns: _Columns, default_id: str) -> Iterator[dict[str, Any]]:
    whole = canonical_record(record)
    for name in ("conversations", "video"):
        columns.get(name)
    common = _common(columns, default_id, whole["video"] if "video" in whole else _video(columns))
    form = _format(columns)
    turns = whole["conversations"]
    if turns and turns[0]["from"] == "system":
        raise ValueError("a conversation has a system turn; hourllava data check --fix leaves it out")
    speakers = [turn["from"] for turn in turns]
    if speakers != ["human", "gpt"] * (len(turns) // 2) or not turns:
        raise ValueError(
            "a conversation holds no exchange of a question and an answer"
            if len(turns) < 2
            else "the turns of a conversation are not question and answer in turn"
        )
    for k, (asked, answered) in enumerate(zip(turns[::2], turns[1::2])):
        evidence = _spans(answered.get("evidence"))
        if evidence is None:
            raise ValueError("a turn's evidence is no list of [start, end], in seconds")
        question, answer = asked["value"].replace(IMAGE, "").strip(), answered["value"]
        if not question or not answer.strip():
            raise ValueError("a question has no answer" if question else "a turn of a conversation is empty")
        name = common["question_id"] if len(turns) == 2 else f"{common['question_id']}-{k}"
        more = {"evidence": evidence} if evidence else {}
        yield common | more | {"question_id": name} | _asked(question, answer, form)


def _of_question(columns: _Columns, default_id: str) -> dict[str, Any]:
    common = _common(columns, default_id, _video(columns))
    form = _format(columns)
    question = columns.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"a question is no text: {question!r:.40}")
    options, labels = _options(columns)
    answer, cell = _text(columns.get("answer")), columns.get("answer_index")
    if not options and form != "open" and cell is not None and (found := find_options(question)) is not None:
        question, options = found.question, found.options  # a number shows that the list holds the options
    index = _position(cell, options, labels) if options else None
    if index is None:
        columns.forget("answer_index")
        if answer is None:
            raise ValueError("a question has no answer")
    return common | _asked(question, answer, form, options=options, labels=labels, index=index)


def _asked(question: str, answer: str | None, form: Format | None, **apart: Any) -> dict[str, Any]:
    """A question's own fields; `apart` are the options that stand apart from it, as `resolve` takes them."""
    found = resolve(question, answer, form=form, **apart)
    if found.index is None:
        return {"question": found.question, "answer": answer, "format": "open"}
    return {
        "question": found.question, "options": found.options, "answer": found.options[found.index],
        "answer_index": found.index, "format": "choice",
    }  # fmt: skip


def _video(columns: _Columns) -> str:
    video = columns.get("video")
    if isinstance(video, list):
        if len(video) > 1:
            raise ValueError(f"a record names {len(video)} videos; one is allowed")
        video = video[0] if video else None
    if isinstance(video, int) and not isinstance(video, bool):
        video = str(video)
    if is_missing(video) or video == "":
        raise ValueError("a record names no video")
    if not isinstance(video, str) or not PurePosixPath(video).name:
        raise ValueError(f"video is no path: {video!r:.40}")
    return video


def _id(cell: Any, default_id: str) -> str:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # a column of numbers in which some are missing
    return default_id if is_missing(cell) or cell == "" else str(cell)


def _path_parts(cell: Any) -> list[str]:
    """The words of a cell such as "temporality/temporal_order/mc"."""
    return [part.strip() for part in cell.split("/")] if isinstance(cell, str) else []


def _format(columns: _Columns) -> Format | None:
    """Open-ended or multiple choice, if a column names it.

    Raises:
        ValueError: two columns contradict each other.
    """
    cells = [*columns.all("format"), *columns.all("task")]
    words = [re.sub(r"[\s_-]", "", word).lower() for cell in cells for word in _path_parts(cell)]
    found = {_FORMATS[word] for word in words if word in _FORMATS}
    if len(found) > 1:
        raise ValueError("one column says open-ended, another multiple choice")
    return next(iter(found), None)


def _text(cell: Any) -> str | None:
    """An answer's or option's text; None if there is none.

    Raises:
        ValueError: it is a list or another value that is not text.
    """
    if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        raise ValueError(f"an answer or option is no text: {type(cell).__name__}")
    return str(cell)


def _options(columns: _Columns) -> tuple[tuple[str, ...], Sequence[str]]:
    """Options in columns of their own, and the labels by which an answer may name them."""
    cells = columns.get("options")
    labels: Sequence[str] = LETTERS
    if isinstance(cells, str):
        cells = _parsed(cells)
    if not cells:
        cells = columns.options()
    if isinstance(cells, dict):
        keys = sorted(cells, key=lambda key: (len(key), key) if key.isdigit() or len(key) == 1 else (99, key))
        keys = [key for key in keys if _text(cells[key]) is not None]
        texts = tuple(str(cells[key]) for key in keys)
        labels = LETTERS if keys == list(LETTERS[: len(keys)]) else keys
        return without_letters(texts), labels
    if not isinstance(cells, list | tuple):
        raise ValueError(f"options are no list: {type(cells).__name__}")
    found = list(cells)
    while found and is_missing(found[-1]):  # tables pad rows with few options
        found.pop()
    if any(_text(cell) is None for cell in found):
        raise ValueError("an option of a multiple-choice question is empty")
    return without_letters([str(cell) for cell in found]), labels


def _parsed(text: str) -> Any:
    """Options in one text: as JSON, marked as in a question, or one per line."""
    if text.lstrip().startswith(("[", "{")):
        try:
            return json.loads(text)
        except ValueError:
            pass
    found = find_options(f"?\n{text}")
    return list(found.options) if found is not None else [line for line in text.split("\n") if line.strip()]


def _position(cell: Any, options: Sequence[str], labels: Sequence[str]) -> int | None:
    """The index of the option that a cell names by number, letter or text; None if it names none."""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)  # a column of numbers in which some are missing
    if isinstance(cell, str):
        return int(cell) if cell.strip().isdecimal() else option_index(cell, options, labels)
    return cell if isinstance(cell, int) and not isinstance(cell, bool) else None


def _seconds(cell: Any) -> float | None:
    try:
        seconds = float(cell) if isinstance(cell, int | float | str) and not isinstance(cell, bool) else math.nan
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _spans(cell: Any) -> tuple[tuple[float, float], ...] | None:
    """(start_seconds, end_seconds) of evidence spans; None if the cell has another form."""
    if is_missing(cell):
        return ()
    if not isinstance(cell, Iterable) or isinstance(cell, str):
        return None
    spans = []
    for item in cell:
        ends = [item.get("start_seconds"), item.get("end_seconds")] if isinstance(item, dict) else item
        if not isinstance(ends, list | tuple) or len(ends) != 2:
            return None
        start, end = map(_seconds, ends)
        if start is None or end is None:
            return None
        spans.append((start, end))
    return tuple(spans)
