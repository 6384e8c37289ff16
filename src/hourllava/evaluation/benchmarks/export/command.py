"""`hourllava eval export`: writes the answers of a run in the forms of other programs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from hourllava.errors import ConfigError
from hourllava.evaluation.benchmarks.catalogue import find_benchmark
from hourllava.evaluation.benchmarks.export.lmms_eval import results_of, samples_of
from hourllava.evaluation.benchmarks.export.submission import submission_of
from hourllava.evaluation.benchmarks.export.vlmevalkit import tables_of
from hourllava.evaluation.benchmarks.outcome import scored_run
from hourllava.evaluation.benchmarks.raw import read_settings, read_summary
from hourllava.files import replacing

Form = Literal["lmms-eval", "vlmevalkit", "submission"]
FORMS: tuple[Form, ...] = get_args(Form)


def parse_forms(text: str) -> tuple[Form, ...]:
    """The forms of "all", or of one name.

    Raises:
        ConfigError: it is another word.
    """
    forms = FORMS if text == "all" else tuple(form for form in FORMS if form == text)
    if not forms:
        raise ConfigError(f"--form is {text!r}; use one of: all, {', '.join(FORMS)}")
    return forms


def export_run(
    run: Path, *, forms: tuple[Form, ...] = FORMS, rule: str | None = None, judge_url: str | None = None,
    judge_model: str | None = None, out: Path | None = None,
) -> Iterator[str]:  # fmt: skip
    """Export a run.

    Args:
        run: the run's folder.
        forms: which; those that the benchmark does not have are said.
        rule, judge_url, judge_model: as `outcome.score_run`.
        out: folder for the files, which gets a folder per form; `RUN/export` by default.

    Yields:
        the path of each file, once it is written.

    Raises:
        ConfigError: the benchmark has none of the forms, or `out` cannot be written.
        Also all errors of `outcome.scored_run`.
    """
    settings, summary = read_settings(run), read_summary(run)
    benchmark = find_benchmark(settings.benchmark)
    scored, _, _ = scored_run(run, rule, judge_url, judge_model)
    files: dict[str, str] = {}
    for form in forms:
        found = {}
        if form == "lmms-eval":
            samples = samples_of(settings, scored, summary)
            found = {f"hourllava_samples_{task}.jsonl": _lines(some) for task, some in samples.items()}
            found["hourllava_results.json"] = _json(results_of(benchmark, settings, scored))
        elif form == "vlmevalkit":
            found = tables_of(settings.benchmark, settings.model, scored, summary)
        else:
            submission = submission_of(settings.benchmark, scored)
            found = {name: _json(value) for name, value in submission.items()}
        if not found:
            yield f"{benchmark.title} has no form {form} that is known here"
        files |= {f"{form}/{name}": text for name, text in found.items()}
    if not files:
        raise ConfigError(f"{benchmark.title} has none of the forms {', '.join(forms)}; use another --form")
    folder = out or run / "export"
    try:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            yield str(folder / name)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}; use a folder you may write to") from error


def _lines(values: list[dict[str, object]]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
