"""`hourllava synth`: from the options of the command to a data set, or to an estimate of what it would cost."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hourllava.errors import ConfigError, DataError, PartlyDoneError
from hourllava.files import replacing
from hourllava.parts import parse_part
from hourllava.synthesis.card import Counts, card_data, card_json, card_text
from hourllava.synthesis.checks.run import Ledger, check_all
from hourllava.synthesis.costs import cost_text
from hourllava.synthesis.folder import STAGES, held_folder
from hourllava.synthesis.job import Cast, Run, model_name
from hourllava.synthesis.models.spec import WORLD, open_model
from hourllava.synthesis.models.spending import Spending
from hourllava.synthesis.prompting import load_prompts
from hourllava.synthesis.records import facts_of, record_files
from hourllava.synthesis.settings import SynthSettings, load_settings
from hourllava.synthesis.stage import StageReport
from hourllava.synthesis.videos import Video, find_videos, load_terms

FORMATS = ("training", "videomarathon")
_ROLES = {
    "captioner": ("clip_caption",),
    "writer": ("events", "event_caption", "summary", "open_questions", "choice_questions"),
    "verifier": ("verify_choice", "verify_open", "guess"),
}


@dataclass(frozen=True)
class SynthOptions:
    """The options of the command.

    Attributes:
        videos: files and folders.
        out: folder of the data set.
        cast: the models.
        settings, prompts, terms: a YAML file, a folder, a file of sources; None: ours, none.
        until: the last stage.
        retry_errors, limit, part, form: as the command's help says.
        max_tokens, max_cost: the budget.
    """

    videos: Sequence[Path]
    out: Path
    cast: Cast
    settings: Path | None = None
    prompts: Path | None = None
    terms: Path | None = None
    until: str = "records"
    retry_errors: bool = False
    limit: int | None = None
    part: str = "0/1"
    form: str = "training"
    max_tokens: int | None = None
    max_cost: float | None = None
    shows_progress: bool = True


def run_synth(options: SynthOptions) -> Iterator[str]:
    """Make a data set; lines for the user.

    Raises:
        ConfigError: an option that is not allowed.
        DataError: no video, nothing was made, or another run is in the folder.
        PartlyDoneError: after the last line, if items were given up.
        StopRun: the budget is spent, or a server does not answer.
    """
    found = find_videos(options.videos, load_terms(options.terms), parse_part(options.part, "--shard"))[: options.limit]
    with open_run(options, found) as run:
        reports = asyncio.run(run.make(options.until))
        yield from _stage_lines(reports)
        if options.until == "records":
            yield from _write_records(run, options)
    failed = sum(report.num_failed for report in reports)
    if failed:
        raise PartlyDoneError(
            f"{failed} items were given up; {options.out}/stages says why, and --retry-errors tries them again"
        )


@contextmanager
def open_run(options: SynthOptions, videos: Sequence[Video]) -> Iterator[Run]:
    """A run in its folder; at its end the costs are written there.

    Args:
        options: of the command.
        videos: of the run.

    Raises:
        ConfigError, DataError: as `run_synth`.
    """
    settings = _checked(options)
    if not videos:
        raise DataError("no video is left; see --shard, --limit and the file of --sources")
    prompts = load_prompts(options.prompts)
    paths = [video.path for video in videos]
    asked = {"cast": vars(options.cast), "settings": settings.model_dump(mode="json")}
    with held_folder(options.out, asked) as folder:
        spending = Spending(folder.log, settings.prices, options.max_tokens, options.max_cost)
        run = Run(
            folder,
            videos,
            settings,
            prompts,
            options.cast,
            lambda spec: open_model(spec, settings.server, paths, options.prompts),
            spending,
            retry_errors=options.retry_errors,
            shows_progress=options.shows_progress,
        )
        try:
            yield run
        finally:
            with replacing(folder.root / "costs.md") as temporary:
                temporary.write_text(cost_text(spending, settings.prices), encoding="utf-8")
            run.close()
            spending.close()


def _checked(options: SynthOptions) -> SynthSettings:
    if options.until not in STAGES:
        raise ConfigError(f"--until is {options.until!r}; use one of: {', '.join(STAGES)}")
    if options.form not in FORMATS:
        raise ConfigError(f"--format is {options.form!r}; use one of: {', '.join(FORMATS)}")
    verifier, writer = (model_name(spec) for spec in (options.cast.verifier, options.cast.writer))
    if verifier and verifier == writer != WORLD:
        raise ConfigError(f"{verifier} wrote the questions; a model that did not must verify them, or none")
    return load_settings(options.settings)


def _stage_lines(reports: Sequence[StageReport]) -> Iterator[str]:
    for report in reports:
        kept = report.num_items - report.num_made - report.num_failed
        line = f"{report.name.replace('_', ' ')}: {report.num_made} made, {kept} kept"
        if report.faults:
            line += f", {report.num_failed} failed ({', '.join(f'{k} {n}' for k, n in report.faults.most_common())})"
        yield line


def _write_records(run: Run, options: SynthOptions) -> Iterator[str]:
    settings, folder = run.settings, run.folder
    ledger, counts = Ledger(), Counts()
    with record_files(folder.jsons, published=options.form == "videomarathon") as writer:
        passed, facts = [], {}
        for told in run.told():
            counts.add_video(told)
            writer.add_video(told)
            candidates = run.candidates(told)
            counts.written += candidates
            left = run.checked(told, ledger)
            verdicts = run.verdicts(told, left)
            counts.verdicts |= {id_: verdict for id_, (_, verdict) in verdicts.items()}
            for candidate in left:
                facts[candidate.id] = facts_of(candidate, told, verdicts.get(candidate.id, (None, None))[0])
            passed += left
        known = counts.verdicts if run.verdict_stage is not None else None
        counts.kept = check_all(passed, known, settings.checks, settings.seed, ledger)
        for candidate in counts.kept:
            writer.add_question(candidate, settings.seed, facts[candidate.id])
        for candidate in counts.written:
            if candidate.id in ledger.dropped:
                writer.add_dropped(candidate, ledger)
    data = card_data(counts, ledger, settings, _models(run))
    name = options.out.absolute().name
    for path, text in (("card.json", card_json(data)), ("card.md", card_text(data, name))):
        with replacing(folder.root / path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    total = data["tasks"]["all"]
    yield (
        f"{total['open']} open-ended and {total['choice']} multiple-choice questions about {counts.num_videos} videos; "
        f"{total['written']} were written, {len(ledger.dropped)} dropped by checks"
    )
    if run.verdict_stage is None:
        yield "no model has verified them (--verifier)"
    yield str(folder.root / "card.md")
    if not counts.written:
        raise DataError(
            f"no question was written; {folder.root / 'costs.md'} counts what went wrong, and {folder.root / 'stages'} "
            "says it of each item"
        )
    if not counts.kept:
        raise DataError(f"no question is left; {folder.root / 'card.md'} says what was dropped")


def _models(run: Run) -> dict[str, dict[str, object]]:
    return {
        role: {
            "model": model_name(getattr(run.cast, role)),
            "prompts": {name: run.prompts[name].digest for name in names},
        }
        for role, names in _ROLES.items()
    }
