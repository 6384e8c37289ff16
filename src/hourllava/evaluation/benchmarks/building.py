"""What the readers of all benchmarks share: rows become questions, and what cannot be used is counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from hourllava.choices import LETTERS
from hourllava.data.records.canonical import is_text
from hourllava.data.records.options import find_options
from hourllava.errors import DataError
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.questions import Problems, Question, QuestionTable

UNREADABLE = "the row cannot be read"
NO_GOLD_OPTION = "the published answer is none of the options, so no answer can be right"


class TableBuilder:
    """Collects the questions of one split.

    Args:
        folder: of the data.
        benchmark, split: names.
        annotations: paths of the files that are read, below the folder.

    Attributes:
        folder: as given.
        problems: what is odd in the files.

    Raises:
        DataError: there is no annotation file; `missing` says what to do.
    """

    def __init__(
        self, folder: DataFolder, benchmark: str, split: str, annotations: Sequence[str], missing: str = ""
    ) -> None:
        if not annotations:
            packed = [archive.command for archive in folder.archives() if archive.is_packed is not False]
            hint = f"; or unpack first: {'; '.join(packed[:3])}" if packed else ""
            raise DataError(f"{folder.root} holds no questions of {benchmark} ({split}); {missing}{hint}")
        self.folder = folder
        self.problems = Problems()
        self._names = benchmark, split
        self._annotations = tuple(annotations)
        self._questions: list[Question] = []
        self._ids: Counter[str] = Counter()
        self._contents: set[tuple[object, ...]] = set()
        self._left_out: Counter[str] = Counter()

    def add(self, question_id: str, **fields: Any) -> None:
        """Add a question; of several with one id, the further ones get a number.

        Raises:
            ValueError: a field has another form; the first line says why.
        """
        times = self._ids[question_id] + 1
        unique = question_id if times == 1 else f"{question_id}#{times}"
        question = Question(id=unique, place=len(self._questions), **fields)
        if not is_text("".join((question.id, question.video, question.text, *question.lines))):
            raise ValueError("half a surrogate pair in a text")
        if times > 1:
            self.problems.add("an id is there twice; both questions are asked", question_id)
        content = (question.video, question.kind, question.text, question.lines)
        if content in self._contents:
            self.problems.add("a question is there twice; both are asked", question.id)
        self._contents.add(content)
        self._ids[question_id] = times
        self._questions.append(question)

    def read(self, row: Mapping[str, Any], place: str, add: Any) -> None:
        """Let `add(row)` add the questions of a row; a row that it cannot read is left out and counted."""
        try:
            add(row)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            self.leave_out(UNREADABLE, f"{place}: {name}: {first['msg']}")
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            self.leave_out(UNREADABLE, f"{place}: {reason}")

    def leave_out(self, reason: str, example: str = "") -> None:
        """Count a published question that cannot be asked."""
        self._left_out[reason] += 1
        if example:
            self.problems.add(reason, example)

    def table(self) -> QuestionTable:
        """The table of all questions.

        Raises:
            DataError: there is none.
        """
        if not self._questions:
            reasons = "; ".join(self.problems.lines()) or "they are empty"
            raise DataError(f"no question could be read from {', '.join(self._annotations)}: {reasons}")
        revision = self.folder.revision(self._annotations)
        return QuestionTable(*self._names, self._annotations, revision, self._questions, self._left_out, self.problems)


def text_of(row: Mapping[str, Any], *names: str) -> str:
    """The text of the first of these columns that has one.

    Raises:
        ValueError: none has.
    """
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    raise ValueError(f"no text in {' or '.join(names)}")


def number_of(row: Mapping[str, Any], name: str) -> float | None:
    """The number in a column; None without one."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def texts_of(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The list of texts in a column.

    Raises:
        ValueError: it is no list of texts.
    """
    value = row.get(name)
    if not isinstance(value, list | tuple) or not value or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{name} is no list of texts")
    return tuple(value)


def split_text(text: str, problems: Problems, example: str) -> tuple[str, tuple[str, ...]]:
    """The question and the options of a text that holds both; the text and no options if they cannot be told apart."""
    found = find_options(text)
    if found is None:
        problems.add("options cannot be told from the question; only the published text is used", example)
        return text, ()
    return found.question, found.options


def gold_of_letter(letter: str | None, num_options: int, problems: Problems, example: str) -> int | None:
    """The index of the option that a published letter names; None if the answer is not public, or names none."""
    if letter is None:
        return None
    bare = letter.strip().strip("().").upper()
    index = LETTERS.find(bare) if len(bare) == 1 else -1
    if not 0 <= index < (num_options or len(LETTERS)):
        problems.add(NO_GOLD_OPTION, example)
        return None
    return index
