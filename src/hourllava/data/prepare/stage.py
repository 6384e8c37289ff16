"""`hourllava data prepare`: all steps from downloaded files to the training data of a stage, in one command.

    records    check every file; write a copy without its problems to OUT/records/checked, with a ledger. Where the
               mixture says so, group files with one question per record: OUT/records/grouped-5
    features   of every video that the records name, if the stage trains from features
    shards     OUT/<source>_part<k>, one folder for each part of the stage
    streams    OUT/hourllava_<stage>: indexes over the parts, without copies
    lengths    beside those indexes, if a model is given

Each step keeps what is done: stopped at any moment and started again, the command ends with the same bytes. Records
that cannot be used do not end the run: they are left out, counted, and listed with their reasons. Paths in shard rows
are relative to the data folder, so one stream may hold videos of several data sets.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self, cast, get_args

import numpy as np
from pydantic import BaseModel
from tqdm import tqdm

from hourllava.data.batches.lengths import load_processor, measure_folder
from hourllava.data.batches.samples import Questions, RowEncoder
from hourllava.data.features.extract import make_features, parse_devices
from hourllava.data.features.files import Form, Storage
from hourllava.data.prepare.commands import merge_stage
from hourllava.data.prepare.mixtures import Mixture, Part, SourceList, read_mixture
from hourllava.data.prepare.shard import KnownFiles, ShardSettings, choose_records, file_digest, shard_records
from hourllava.data.records.canonical import RecordFault, canonical_record, is_conversation
from hourllava.data.records.check import CheckReport, check_records
from hourllava.data.records.group import group_records
from hourllava.data.records.media import feature_name, find_media
from hourllava.data.records.mend import fix_records
from hourllava.data.records.reading import iterate_entries, records_suffix
from hourllava.data.records.record_file import RecordFile, read_records
from hourllava.errors import ConfigError, DataError, PartlyDoneError
from hourllava.files import remove_leftovers, replacing
from hourllava.locks import lock_folder
from hourllava.processes import usable_cores

FEATURE_FORMS: dict[str, tuple[Form, Storage]] = {
    ".safetensors": ("memory", "bfloat16"),
    ".int8.safetensors": ("memory", "int8"),
    ".pt": ("released", "bfloat16"),
}
"""Suffix of a feature file -> its form and storage."""

MAX_LISTED = 5


@dataclass(frozen=True)
class PrepareSettings:
    """The stage to prepare, and how."""

    stage: str
    root: Path  # of all data sets
    out: Path
    mixture: Mixture
    model: str | None = None  # for features and lengths; None: only features that exist are used
    questions: Questions = "conversation"
    video_suffix: str = ".safetensors"  # of feature files
    devices: str | None = None
    decoders: int | None = None
    num_processes: int = 1  # that measure lengths

    def __post_init__(self) -> None:
        self.mixture.stage(self.stage)
        if self.video_suffix not in FEATURE_FORMS:
            raise ConfigError(f"--video-suffix is {self.video_suffix!r}; use one of: {', '.join(FEATURE_FORMS)}")
        if self.questions not in get_args(Questions):
            raise ConfigError(f"--questions is {self.questions!r}; use one of: {', '.join(get_args(Questions))}")

    @classmethod
    def of(
        cls, stage: str, root: Path, out: Path | None, mixture: Path | None, model: str | None, questions: str,
        video_suffix: str, devices: str | None, decoders: int | None, processes: int | None,
    ) -> Self:  # fmt: skip
        """The settings of a command's options.

        Raises:
            ConfigError: an option is outside what is allowed, or the mixture cannot be read.
        """
        return cls(
            stage, root, out or root / "VideoMarathon" / "sharding", read_mixture(mixture), model,
            cast(Questions, questions), video_suffix, devices, decoders, processes or usable_cores(),
        )  # fmt: skip


class Checked(BaseModel):
    """The result of checking a file of records; kept beside its copy, and valid until the file changes."""

    digest: str  # SHA-256 of the file
    use: str  # the file that replaces it, below OUT/records; empty: the file itself
    num_records: int
    num_dropped: int
    num_changed: int
    not_grouped: str = ""  # the reason, if the mixture wants its questions grouped


def prepare_stage(settings: PrepareSettings) -> Iterator[str]:
    """Do all steps; lines for the user, a summary last.

    Raises:
        PartlyDoneError: after the last line, if records or samples were left out.
        DataError: a stream of the stage has no sample, record files of the mixture are missing, or a folder cannot be
            written or is in use by another run.
        ConfigError, CheckpointError: as `make_features`.
    """
    stage = settings.mixture.stage(settings.stage)
    wanted = {path for part in stage.parts for path in settings.mixture.source(part.source).files}
    missing = sorted(path for path in wanted if not (settings.root / path).is_file())
    if missing:
        more = f" and {len(missing) - MAX_LISTED} more" if len(missing) > MAX_LISTED else ""
        raise DataError(
            f"{len(missing)} record files of stage {settings.stage} are not in {settings.root}: "
            f"{', '.join(missing[:MAX_LISTED])}{more}; `hourllava data sources` tells where they come from, --mixture "
            "names others"
        )
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
        with lock_folder(settings.out):
            yield from _prepare(settings, stage.parts, from_features=stage.videos == "features")
    except OSError as error:
        raise DataError(
            f"{error.filename or settings.out} cannot be used: {error.strerror or error}; free space, or choose "
            "another folder with --out, then run again: what is done is kept"
        ) from error


def _prepare(settings: PrepareSettings, parts: list[Part], *, from_features: bool) -> Iterator[str]:
    ledgers: list[Path] = []
    sources = {part.source: settings.mixture.source(part.source) for part in parts}
    checked = _check_all(settings, sources)
    num_records = sum(state.num_records for state in checked.values())
    num_dropped = sum(state.num_dropped for state in checked.values())
    num_changed = sum(state.num_changed for state in checked.values())
    yield f"records: {num_records} in {len(checked)} files, {num_dropped} left out, {num_changed} changed"
    for (name, number), state in checked.items():
        if number is not None and state.not_grouped:
            yield f"records: {name}: not grouped by {number}: {state.not_grouped}"
    if num_dropped or num_changed:
        ledgers.append(settings.out / "records" / "checked")

    known: KnownFiles = {}
    runs = [(part, _shard_settings(settings, part, checked, from_features=from_features)) for part in parts]
    if from_features:
        yield from _make_features(settings, [(sources[part.source], run) for part, run in runs], known, ledgers)

    summaries = [shard_records(run, settings.out / part.folder, known) for part, run in runs]
    num_samples = sum(summary.num_samples for summary in summaries)
    num_skipped = sum(summary.num_skipped for summary in summaries)
    num_unmeasured = 0
    yield f"shards: {num_samples} samples in {len(runs)} parts, {num_skipped} records left out"
    ledgers += [summary.ledger for summary in summaries if summary.ledger is not None]

    folder = settings.out / f"hourllava_{settings.stage}"
    counts = merge_stage(settings.mixture, settings.stage, settings.out, folder, settings.root)
    if settings.model is not None:
        encoder = RowEncoder(load_processor(settings.model), settings.root, questions=settings.questions)
        for name, count in counts.items():
            _, num_unknown = measure_folder(folder / name, encoder, num_processes=settings.num_processes)
            num_unmeasured += num_unknown
            unknown = f", {num_unknown} cannot be measured: training will skip them" if num_unknown else ""
            yield f"lengths: {folder / name}: {count} rows{unknown}"
    if empty := [name for name, count in counts.items() if not count]:
        why = f"; why: {', '.join(map(str, ledgers))}" if ledgers else ""
        raise DataError(
            f"stream {empty[0]} of stage {settings.stage} holds no sample: {num_skipped} records were left out of the "
            f"shards, {num_dropped} before{why}"
        )
    for name, count in counts.items():
        yield f"stage {settings.stage}: {folder / name}: {count} samples"
    yield from (f"why left out or changed: {ledger}" for ledger in ledgers)
    if num_dropped or num_skipped or num_unmeasured:
        raise (PartlyDoneError if num_samples > num_unmeasured else DataError)(
            f"stage {settings.stage} has {num_samples} samples; {num_dropped + num_skipped} records were left out, "
            f"{num_unmeasured} samples cannot be measured"
        )


def _shard_settings(
    settings: PrepareSettings, part: Part, checked: dict[tuple[str, int | None], Checked], *, from_features: bool
) -> ShardSettings:
    source = settings.mixture.source(part.source)
    files = []
    for path, taken in source.files.items():
        use = checked[path, source.questions_per_record].use
        files.append((settings.out / "records" / use if use else settings.root / path, taken))
    names_features = from_features and source.kind == "video"
    return ShardSettings(
        files=tuple(files),
        kind=source.kind,
        media_root=settings.root,
        media_folder=(source.features or "") if names_features else source.media,
        num_workers=source.workers,
        part=(part.number, settings.mixture.parts),
        only_images=source.only_images,
        video_suffix=settings.video_suffix if names_features else None,
    )


def _check_all(settings: PrepareSettings, sources: dict[str, SourceList]) -> dict[tuple[str, int | None], Checked]:
    """The result for every record file of the mixture, by its path and its questions per record."""
    wanted = {(path, source.questions_per_record) for source in sources.values() for path in source.files}
    folder = settings.out / "records"
    with tqdm(sorted(wanted, key=str), unit="file", desc="records", file=sys.stderr) as bar:
        return {(path, number): _check(settings.root / path, path, folder, number) for path, number in bar}


def _check(path: Path, name: str, folder: Path, questions_per_record: int | None) -> Checked:
    """Check a file and write the file that replaces it, unless that is done."""
    checked = folder / "checked" / name
    # The folder has the file's whole name: part.json and part.jsonl are two files. Shard rows hold the stem.
    grouped = folder / f"grouped-{questions_per_record}" / name / f"{Path(name).stem}.json"
    state_path = (checked if questions_per_record is None else grouped).with_name(f"{Path(name).name}.state.json")
    digest = file_digest(path)
    try:
        state = Checked.model_validate_json(state_path.read_text(encoding="utf-8"))
        if state.digest == digest and (not state.use or (folder / state.use).is_file()):
            return state
    except (OSError, ValueError):
        pass
    for made in (checked, grouped):
        if made is checked or questions_per_record is not None:
            made.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(made.parent, (made.name, f"{made.name}.ledger.jsonl", state_path.name))
    report = CheckReport()
    for _ in check_records(path, report):
        pass  # the report counts them; the ledger lists each
    use, num_dropped, num_changed = path, 0, 0
    if report.num_problems:
        num_dropped, num_changed = fix_records(path, checked, report)
        use = checked
    not_grouped = ""
    if questions_per_record is not None and not (not_grouped := _several_questions(use)):
        group_records(use, grouped, num_questions=questions_per_record)
        use = grouped
    if file_digest(path) != digest:
        raise DataError(f"{path} changed while it was read; run again")
    state = Checked(
        digest=digest, use="" if use is path else use.relative_to(folder).as_posix(),
        num_records=report.num_records, num_dropped=num_dropped, num_changed=num_changed, not_grouped=not_grouped,
    )  # fmt: skip
    with replacing(state_path) as temporary:
        temporary.write_text(state.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return state


def _several_questions(path: Path) -> str:
    """Describe the records that ask several questions, for which a file is not grouped; empty if there are none."""
    if records_suffix(path) == ".parquet":
        return ""  # a table has one question per row
    first, count = 0, 0
    for entry in iterate_entries(path):
        try:
            if is_conversation(entry.value) and len(canonical_record(entry.value)["conversations"]) > 2:
                first, count = first or entry.number, count + 1
        except RecordFault:
            pass  # `group_records` reports it
    return f"{count} of its records ask several questions, record {first} is the first" if count else ""


def _make_features(
    settings: PrepareSettings, runs: Sequence[tuple[SourceList, ShardSettings]], known: KnownFiles, ledgers: list[Path]
) -> Iterator[str]:
    """Make the features of all videos that the chosen records name, and keep features of videos that are gone."""
    if settings.model is None:
        yield "features: none made without --model; those that are there are used"
        return
    names: dict[tuple[str, str], set[str]] = {}
    for source, run in runs:
        if source.kind == "video" and source.features is not None:
            found = names.setdefault((source.media, source.features), set())
            found.update(_video_names(choose_records(run, known), settings.root / source.media, run))
    form, storage = FEATURE_FORMS[settings.video_suffix]
    for (media, features), videos in sorted(names.items()):
        report = make_features(
            [settings.root / media], settings.root / features, model=settings.model, names=sorted(videos), form=form,
            storage=storage, devices=parse_devices(settings.devices), decoders=settings.decoders,
        )  # fmt: skip
        yield f"features: {features}: {report.lines()[0]}"
        ledgers += [report.ledger] if report.failures else []


def _video_names(chosen: Sequence[tuple[RecordFile, np.ndarray]], media: Path, run: ShardSettings) -> Iterator[str]:
    """Paths below `media` of the videos that records name; the places of their features follow from them.

    The ledger of the shards reports names that are no path or lead out of the folder.
    """
    features, suffix = run.media_root / run.media_folder, run.video_suffix or ""
    for records, numbers in chosen:
        for record in read_records(records.path, records.spans(numbers)):
            with suppress(DataError):
                whole = canonical_record(record) if isinstance(record, dict) else {}
                name, source = whole.get("video"), whole.get("data_source")
                if not isinstance(name, str) or not PurePosixPath(name).name:
                    continue
                found = find_media(name, media, source)
                # A video that is gone is no loss if its features exist.
                if found is not None or find_media(feature_name(name, suffix), features, source) is None:
                    yield found or name
