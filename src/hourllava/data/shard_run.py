"""What `hourllava data shard` and `data merge` do with their options."""

import json
from collections.abc import Sequence
from pathlib import Path

from hourllava.data.atomic import replacing
from hourllava.data.mds_merge import merge_indexes
from hourllava.data.mixtures import SOURCE_LISTS, Kind, Sampling, find_source_list, parse_part, stage_streams
from hourllava.data.sharding import ShardSettings, shard_records
from hourllava.errors import ConfigError, DataError

STREAMS_NAME = "streams.json"


def run_shard(
    records: Sequence[str],
    out: Path,
    media_root: Path,
    kind: Kind | None,
    records_root: Path,
    sample: str,
    part: str,
    num_workers: int,
    seed: int,
    video_suffix: str | None,
    size_limit_mib: int,
) -> list[str]:
    """Shard record files, or one published source list; returns lines for the user.

    Raises:
        ConfigError: options that do not go together or are outside what is allowed.
        DataError: as of `shard_records`.
    """
    only_images = False
    sampling = Sampling.parse(sample)
    if len(records) == 1 and not records[0].endswith((".json", ".jsonl")):
        source = find_source_list(records[0])
        if kind not in (None, source.kind) or sample != "all":
            raise ConfigError(
                f"{source.name} has its own kind ({source.kind}) and sampling; leave out --kind, --sample"
            )
        kind, only_images = source.kind, source.only_images
        files = tuple((records_root / path, taken) for path, taken in source.files.items())
    else:
        files = tuple((Path(path), sampling) for path in records)
    if kind is None:
        raise ConfigError(
            f"files of records need --kind video, image or images; source lists do not: {', '.join(SOURCE_LISTS)}"
        )
    settings = ShardSettings(
        files=files,
        kind=kind,
        media_root=media_root,
        num_workers=num_workers,
        part=parse_part(part),
        only_images=only_images,
        seed=seed,
        video_suffix=video_suffix,
        size_limit_bytes=size_limit_mib << 20,
    )
    summary = shard_records(settings, out)
    lines = [f"{out}: {summary.num_samples} samples"]
    if summary.ledger:
        lines.append(f"{summary.num_skipped} records were skipped; the reasons are in {summary.ledger}")
    return lines


def run_merge(folders: Sequence[Path], out: Path | None, stage: str | None) -> list[str]:
    """Merge workers' folders in place, parts into an index elsewhere, or the parts of a stage; lines for the user.

    Raises:
        ConfigError: options that do not go together.
        DataError: as of `merge_indexes`.
    """
    if stage is not None:
        if out is None or len(folders) != 1:
            raise ConfigError("--stage needs --out and the one folder that holds the parts")
        return [f"{out / name}: {count} samples" for name, count in merge_stage(stage, folders[0], out).items()]
    if out is not None:
        return [f"{out}: {merge_indexes(out, folders)} samples"]
    return [f"{folder}: {merge_indexes(folder)} samples" for folder in folders]


def merge_stage(stage: str, parts_root: Path, out: Path) -> dict[str, int]:
    """Write `out/STREAM/index.json` for every stream of a stage, and `out/streams.json` that lists them.

    Args:
        stage: "s1", "s2" or "s3".
        parts_root: holds the parts' folders, named as `Part.folder` says.
        out: nothing but indexes (and lengths) is written there.

    Returns stream -> number of samples.

    Raises:
        ConfigError: there is no such stage.
        DataError: a part is missing or damaged, or `out` cannot be written.
    """
    counts = {}
    for stream in stage_streams(stage):
        sources = [
            (parts_root / part.folder, part.half) if part.half else parts_root / part.folder for part in stream.parts
        ]
        counts[stream.name] = merge_indexes(out / stream.name, sources)
    listing = {"version": 1, "streams": [{"folder": name, "samples": count} for name, count in counts.items()]}
    try:
        with replacing(out / STREAMS_NAME) as temporary:
            temporary.write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}; use a folder you may write to") from error
    return counts
