"""Answer all questions of a benchmark and write the results; an interrupted run continues where it stopped."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel
from tqdm import tqdm

from hourllava.errors import InputError, PartlyDoneError, VideoError
from hourllava.evaluation.answering import Case, answer_case
from hourllava.evaluation.results import ANSWERS_NAME, read_answers, write_results
from hourllava.evaluation.scores import Condition
from hourllava.files import cut_unfinished_line
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import MemoryCache


def answer_all(
    cases: Sequence[Case],
    engines: Mapping[Condition, HourLlava],
    settings: BaseModel,
    out: Path,
    *,
    max_new_tokens: int,
    cache: MemoryCache | None,
) -> Iterator[str]:
    """Append an answer per question to OUT/answers.jsonl, then write scores, tables and figures.

    Args:
        cases: videos with their questions; together at least one question.
        engines: from `engines_for`.
        settings: stored with the scores.
        out: folder that the run holds (`run_folder`); answers in it are not asked again.
        max_new_tokens: limit of open-ended answers.
        cache: of memories; None watches every video.

    Yields:
        the paths of the results.

    Raises:
        DataError: the answers of an earlier run cannot be read.
        PartlyDoneError: some videos cannot be watched or asked about; raised after the last path.
        VideoError, InputError: no video can.
    """
    path = out / ANSWERS_NAME
    cut_unfinished_line(path)
    answered = read_answers(path) if path.exists() else []
    done = {one.id for one in answered}
    total = sum(len(case.questions) for case in cases)
    failures: list[VideoError | InputError] = []
    with path.open("a", encoding="utf-8") as file, _progress(total, len(done)) as progress:
        for case in cases:
            try:
                for one in answer_case(case, done, engines, max_new_tokens, cache):
                    file.write(one.model_dump_json() + "\n")
                    file.flush()
                    answered.append(one)
                    progress.update(1)
            except (VideoError, InputError) as error:
                failures.append(error)
                progress.write(f"failed: {error}", file=sys.stderr)
    if not answered:
        raise failures[0]
    yield from write_results(settings.model_dump(mode="json"), answered, out)
    if failures:
        raise PartlyDoneError(
            f"{total - len(answered)} of {total} questions were not answered because {len(failures)} of {len(cases)} "
            f"videos failed; they are not scored. The first error: {failures[0]}"
        )


def _progress(total: int, num_done: int) -> tqdm:
    return tqdm(total=total, initial=num_done, unit="question", desc="asking", file=sys.stderr)
