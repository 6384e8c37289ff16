"""From stored answers to scores, tables and figures: `hourllava eval score`, and the end of `hourllava eval world`.

No model is loaded. Several sets of answers can be scored as one. Two models that answered the same questions can be
compared question by question.
"""

import importlib.util
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hourllava.errors import ConfigError, DataError
from hourllava.evaluation.report import against_section, table_of
from hourllava.evaluation.scores import AnsweredQuestion, compare, is_right, score
from hourllava.files import replacing

SETTINGS_NAME = "evaluation.json"
ANSWERS_NAME = "answers.jsonl"
SCORES_NAME = "scores.json"
TABLE_NAME = "table.md"

logger = logging.getLogger(__name__)


def read_answers(path: Path) -> list[AnsweredQuestion]:
    """Read a file of answers. A half-written last line, left by a killed run, is skipped with a warning.

    Raises:
        DataError: the file cannot be read, is damaged, or answers a question twice.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a folder of `hourllava eval world`") from error
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        logger.warning("the last line of %s is incomplete and is skipped", path)
    try:
        answered = [AnsweredQuestion.model_validate_json(line) for line in whole.splitlines()]
    except ValidationError as error:
        raise DataError(
            f"{path} is damaged or of another version ({error.error_count()} errors); remove it and ask again"
        ) from error
    _check_ids(answered, str(path))
    return answered


def _check_ids(answered: Sequence[AnsweredQuestion], where: str) -> None:
    (name, count), *_ = Counter(one.id for one in answered).most_common(1) or [("", 0)]
    if count > 1:
        raise DataError(f"{where}: question {name} is answered {count} times; give each set of answers only once")


def run_score(answers: Sequence[Path], against: Path | None, out: Path | None) -> Iterator[str]:
    """Score stored answers again.

    Args:
        answers: folders of `hourllava eval world`, or their answers.jsonl; they are scored as one set.
        against: answers of another model to the same questions.
        out: folder for the results; by default the folder of the answers.

    Yields:
        the paths of the written files.

    Raises:
        ConfigError: several sets without `out`, or a folder that cannot be written.
        DataError: answers are missing, damaged or given twice, or the two models share no question.
    """
    files = [_answers_file(path) for path in answers]
    if out is None and len(files) > 1:
        raise ConfigError(f"{len(files)} sets of answers need a folder for their common scores; give --out")
    answered = [_judged(one) for path in files for one in read_answers(path)]
    if not answered:
        raise DataError(f"{', '.join(map(str, files))}: there is no answer to score; let `hourllava eval world` finish")
    _check_ids(answered, "all sets together")
    others = None if against is None else [_judged(one) for one in read_answers(_answers_file(against))]
    settings = [_settings_beside(path) for path in files]
    yield from write_results(settings[0] if len(settings) == 1 else settings, answered, out or files[0].parent, others)


def _answers_file(path: Path) -> Path:
    return path / ANSWERS_NAME if path.is_dir() else path


def _judged(one: AnsweredQuestion) -> AnsweredQuestion:
    """The answer, judged by today's rules."""
    return one.model_copy(update={"right": {name: is_right(text, one.truth) for name, text in one.answers.items()}})


def _settings_beside(path: Path) -> Any:
    try:
        return json.loads(path.with_name(SETTINGS_NAME).read_bytes())
    except (OSError, ValueError):
        logger.warning("%s has no readable %s beside it; the scores will lack its settings", path, SETTINGS_NAME)
        return None


def write_results(
    settings: Any,
    answered: Sequence[AnsweredQuestion],
    out: Path,
    others: Sequence[AnsweredQuestion] | None = None,
) -> Iterator[str]:
    """Write scores, tables and figures.

    Args:
        settings: plain data, stored with the scores.
        answered: all answers.
        out: folder for the files.
        others: another model's answers to the same questions.

    Yields:
        the path of each file, once it is written.

    Raises:
        ConfigError: `out` cannot be written.
        DataError: `others` and `answered` share no question.
    """
    scores = score(answered)
    table = table_of(scores)
    if others is not None:
        scores["against"], num_alone = compare(answered, others)
        table += f"\n{against_section(scores['against'], num_alone)}\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in (
            (SCORES_NAME, json.dumps({"settings": settings, **scores}, indent=1) + "\n"),
            (TABLE_NAME, table),
        ):
            with replacing(out / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            yield str(out / name)
        if importlib.util.find_spec("matplotlib") is None:
            logger.warning(
                "figures need matplotlib: run pip install 'hourllava[world]', then hourllava eval score %s", out
            )
            return
        from hourllava.evaluation.figures import write_figures

        yield from map(str, write_figures(scores, answered, out))
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}; use a folder you may write to") from error
