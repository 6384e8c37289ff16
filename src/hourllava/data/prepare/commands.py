"""The commands `hourllava data shard`, `merge`, `lengths` and `verify`: options in, lines for the user out."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from hourllava.data.mds.format import LENGTHS_NAME
from hourllava.data.mds.merge import merge_indexes, path_from
from hourllava.data.mds.reader import MdsDataset
from hourllava.data.prepare.mixtures import Kind, Mixture, Sampling, published_mixture, read_mixture
from hourllava.data.prepare.shard import ShardSettings, shard_records
from hourllava.data.records.reading import records_suffix
from hourllava.errors import ConfigError, DataError, PartlyDoneError
from hourllava.files import remove_leftovers, replacing
from hourllava.locks import lock_folder
from hourllava.parts import parse_part
from hourllava.processes import usable_cores

STREAMS_NAME = "streams.json"


def run_shard(
    records: Sequence[str],
    out: Path,
    media_root: Path,
    kind: str | None,
    records_root: Path,
    sample: str,
    part: str,
    num_workers: int,
    seed: int,
    video_suffix: str | None,
    size_limit_mib: int,
) -> Iterator[str]:
    """Shard record files, or one published source list; lines for the user.

    Raises:
        ConfigError: options contradict each other or are outside what is allowed.
        PartlyDoneError: after the last line, if some records were skipped.
        DataError: after the last line, if no record can be used; or as `shard_records`.
    """
    if kind not in (None, *get_args(Kind)):
        raise ConfigError(f"--kind is {kind!r}; use one of: {', '.join(get_args(Kind))}")
    only_images = False
    sampling = Sampling.parse(sample)
    if len(records) == 1 and not Path(records[0]).suffix:
        source = published_mixture().source(records[0])
        if kind not in (None, source.kind) or sample != "all":
            raise ConfigError(f"{records[0]} has its own kind ({source.kind}) and sampling; leave out --kind, --sample")
        kind, only_images = source.kind, source.only_images
        files = tuple((records_root / path, taken) for path, taken in source.files.items())
    else:
        for name in records:
            records_suffix(Path(name), (".json", ".jsonl"))
        files = tuple((Path(path), sampling) for path in records)
    if kind is None:
        raise ConfigError(
            "files of records need --kind video, image or images; source lists do not: "
            + ", ".join(published_mixture().sources)
        )
    settings = ShardSettings(
        files=files,
        kind=cast(Kind, kind),
        media_root=media_root,
        num_workers=num_workers,
        part=parse_part(part, "--part"),
        only_images=only_images,
        seed=seed,
        video_suffix=video_suffix,
        size_limit_bytes=size_limit_mib << 20,
    )
    summary = shard_records(settings, out)
    yield f"{out}: {summary.num_samples} samples"
    skipped = f"{summary.num_skipped} records were skipped; the reasons are in {summary.ledger}"
    if not summary.num_samples:
        raise DataError(f"{out} holds no sample: {skipped if summary.ledger else 'no record was chosen'}")
    if summary.num_skipped:
        raise PartlyDoneError(skipped)


def run_merge(folders: Sequence[Path], out: Path | None, stage: str | None, mixture: Path | None) -> Iterator[str]:
    """Merge workers' folders in place, parts into an index elsewhere, or the parts of a stage; lines for the user.

    Raises:
        ConfigError: options contradict each other, or the mixture or stage does not exist.
        PartlyDoneError: after the last line, if some of several folders cannot be merged in place.
        DataError: as `merge_indexes`.
    """
    if stage is not None:
        if out is None or len(folders) != 1:
            raise ConfigError("--stage needs --out and the one folder that holds the parts")
        counts = merge_stage(read_mixture(mixture), stage, folders[0], out)
        yield from (f"{out / name}: {count} samples" for name, count in counts.items())
        return
    if mixture is not None:
        raise ConfigError("--mixture goes with --stage")
    if out is not None:
        yield f"{out}: {_merge(out, folders)} samples"
        return
    failures = []
    for folder in folders:
        try:
            yield f"{folder}: {_merge(folder)} samples"
        except DataError as error:
            failures.append(error)
    if failures:
        message = "; ".join(map(str, failures))
        raise (PartlyDoneError if len(failures) < len(folders) else DataError)(message)


def _merge(out: Path, folders: Sequence[Path] | None = None) -> int:
    try:
        if folders is not None:
            out.mkdir(parents=True, exist_ok=True)
        with lock_folder(out):
            return merge_indexes(out, folders)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}; use a folder you may write to") from error


def merge_stage(
    mixture: Mixture, stage: str, parts_root: Path, out: Path, media_root: Path | None = None
) -> dict[str, int]:
    """Write `out/STREAM/index.json` for every stream of a stage, and the list of them, `out/streams.json`.

    Args:
        mixture: the published one, or your own.
        stage: "s1", "s2" or "s3".
        parts_root: holds the folders of the parts, named by `Part.folder`.
        out: gets only indexes and lengths.
        media_root: the folder that paths in shard rows are relative to, if all share one; noted in `streams.json`.

    Returns stream -> number of samples.

    Raises:
        ConfigError: there is no such stage.
        DataError: a part is missing or damaged, or `out` cannot be written.
    """
    counts = {}
    streams = mixture.stage(stage).streams
    try:
        out.mkdir(parents=True, exist_ok=True)
        with lock_folder(out):
            for name, parts in streams.items():
                sources = [(parts_root / part.folder, part.half) if part.half else parts_root / part.folder
                           for part in parts]  # fmt: skip
                counts[name] = merge_indexes(out / name, sources)
            listing: dict[str, Any] = {
                "version": 1,
                "streams": [{"folder": name, "samples": count} for name, count in counts.items()],
            }
            if media_root is not None:
                listing["media_root"] = path_from(out, media_root)
            remove_leftovers(out, [STREAMS_NAME])
            with replacing(out / STREAMS_NAME) as temporary:
                temporary.write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}; use a folder you may write to") from error
    return counts


def stream_folders(folder: Path) -> list[Path]:
    """The folders of shards that `streams.json` lists; without that file, the folder itself.

    Raises:
        DataError: the list is damaged.
    """
    return [folder] if (listing := _read_listing(folder)) is None else [folder / name for name in listing[0]]


def stage_media_root(folder: Path) -> Path | None:
    """The folder that paths in a stage's shard rows are relative to, as `data prepare` notes it; None if not noted.

    Raises:
        DataError: the list of streams is damaged.
    """
    listing = _read_listing(folder)
    return None if listing is None or listing[1] is None else folder / listing[1]


def _read_listing(folder: Path) -> tuple[list[str], str | None] | None:
    """Streams and media folder of a stage, relative to its folder; None for a folder without such a list."""
    path = folder / STREAMS_NAME
    if not path.exists():
        return None
    try:
        listing = json.loads(path.read_bytes())
        names, media_root = [stream["folder"] for stream in listing["streams"]], listing.get("media_root")
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError("it lists no streams")
        if not isinstance(media_root, str | None):
            raise TypeError("'media_root' must be a path")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}; run data merge --stage again") from error
    return names, media_root


def run_lengths(
    folder: Path, model: str, media: Path | None, questions: str, history: int, processes: int | None
) -> Iterator[str]:
    """Measure the shard rows of a folder, or of all streams of a stage, for a model; lines for the user.

    Args:
        folder: of shards, or of a stage's streams.
        model: text and visual tokens are counted as this model sees them.
        media: the folder that paths in shard rows are relative to; by default the stage's folder names it, or `data`.
        questions: "conversation" or "segments".
        history: with segments, the most earlier questions in front of a question.
        processes: measuring processes; by default one for each usable core.

    Raises:
        ConfigError: no such choice for `questions`, or `history` without segments.
        PartlyDoneError: after the last line, if some rows cannot be measured.
        DataError: after the last line, if no row can be measured; or as `measure_folder`.
    """
    from hourllava.data.batches.lengths import load_processor, measure_folder  # imports torch
    from hourllava.data.batches.samples import RowEncoder

    media = media or stage_media_root(folder) or Path("data")
    encoder = RowEncoder(load_processor(model), media, questions=cast(Any, questions), history=history)
    total_rows = total_unknown = 0
    for stream in stream_folders(folder):
        num_rows, num_unknown = measure_folder(stream, encoder, num_processes=processes or usable_cores())
        unknown = f"; {num_unknown} cannot be measured, training will skip them" if num_unknown else ""
        yield f"{stream}: {num_rows - num_unknown} rows measured{unknown}"
        total_rows += num_rows
        total_unknown += num_unknown
    if total_unknown:
        message = f"{total_unknown} of {total_rows} rows cannot be measured; the warnings above say why"
        raise (PartlyDoneError if total_unknown < total_rows else DataError)(message)


def run_verify(folder: Path) -> Iterator[str]:
    """Check every shard of a folder, or of all streams of a stage; lines for the user.

    Raises:
        PartlyDoneError: after the last line, if some indexes, shards or lengths are damaged.
        DataError: after the last line, if none is whole.
    """
    streams, faults, num_whole = stream_folders(folder), [], 0
    for stream in streams:
        try:
            dataset = MdsDataset(stream)
            dataset.verify(progress=True)
            if (stream / LENGTHS_NAME).exists():
                dataset.lengths()
        except (DataError, PartlyDoneError) as error:
            faults.append(error)
        else:
            num_whole += 1
            yield f"{stream}: {len(dataset)} samples, all shards are whole"
    if faults:
        is_partly = num_whole or any(isinstance(error, PartlyDoneError) for error in faults)
        raise (PartlyDoneError if is_partly else DataError)("; ".join(map(str, faults)))
