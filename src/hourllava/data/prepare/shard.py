"""`hourllava data shard`: training records and their images -> MDS shards, in parallel, resumable.

    OUT/settings.json                the run's settings, and the SHA-256 of its record files; a run with others is
                                     refused, wherever the files lie
    OUT/0, OUT/1, ...                one folder per worker: shards, index.json, skipped.jsonl
    OUT/index.json                   the merged index
    OUT/skipped.jsonl                the skipped records with their reasons, one JSON object per line

Worker w takes the w-th contiguous part of the chosen records, so the merged index keeps their order.
"""

import hashlib
import io
import json
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from hourllava.data.mds.encodings import CODING_ERRORS, decode_jpeg, encode_jpeg
from hourllava.data.mds.merge import merge_indexes
from hourllava.data.mds.writer import DEFAULT_SIZE_LIMIT_BYTES, LEDGER_NAME, ShardWriter
from hourllava.data.prepare.mixtures import Kind, Sampling
from hourllava.data.records.canonical import canonical_record, is_conversation, media_names
from hourllava.data.records.media import feature_name, find_media
from hourllava.data.records.record_file import RecordFile, read_records
from hourllava.errors import ConfigError, DataError, HourLlavaError
from hourllava.files import remove_leftovers, replacing
from hourllava.locks import lock_folder
from hourllava.processes import report_progress, run_jobs, usable_cores, worker_pool
from hourllava.video.picture_file import is_upright, open_picture, upright_rgb

COLUMNS: dict[Kind, dict[str, str]] = {
    "video": {"video": "str", "text": "json"},
    "image": {"image": "jpeg", "text": "json"},
    "images": {"image": "list[jpeg]", "text": "json"},
}
SETTINGS_NAME = "settings.json"


@dataclass(frozen=True)
class ShardSettings:
    """The records to shard, and how."""

    files: tuple[tuple[Path, Sampling], ...]  # record files in order, and how much of each
    kind: Kind
    media_root: Path  # rows' paths are relative to it
    media_folder: str = ""  # below the media root; the records' paths are relative to it
    num_workers: int = 1
    part: tuple[int, int] = (0, 1)  # k, N: of the chosen records, those with number modulo N = k
    only_images: bool = False
    seed: int = 0  # of random sampling
    video_suffix: str | None = None  # ".safetensors": the video column names the features instead
    size_limit_bytes: int = DEFAULT_SIZE_LIMIT_BYTES

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ConfigError(f"got {self.num_workers} workers; 1 or more are allowed")
        if self.video_suffix is not None and not re.fullmatch(r"(\.\w+)+", self.video_suffix):
            raise ConfigError(f"got the video suffix {self.video_suffix!r}; allowed: a dot and a name, as .safetensors")


@dataclass(frozen=True)
class ShardSummary:
    """The result of a run."""

    num_samples: int
    num_skipped: int
    ledger: Path | None  # of the skipped records


@dataclass(frozen=True)
class _Job:
    """One worker's share: spans of records, int64 [n, 2] in bytes, per file."""

    folder: Path
    settings: ShardSettings
    shares: tuple[tuple[Path, np.ndarray, np.ndarray], ...]  # path, numbers [n], spans [n, 2]


@dataclass(frozen=True)
class KnownFile:
    """A record file whose records and digest are known."""

    records: RecordFile
    digest: str  # SHA-256 of its bytes
    state: tuple[int, int]  # size in bytes and time of the last change in ns, both before it was read

    @classmethod
    def of(cls, path: Path) -> "KnownFile":
        """Find the records of a file, and its digest.

        Raises:
            DataError: it cannot be used.
        """
        state, digest = _state(path), file_digest(path)  # first, so that a later change is noticed
        return cls(RecordFile(path), digest, state)

    def check_unchanged(self) -> None:
        """Check that the file has not changed since it was read.

        Raises:
            DataError: it has, so any of its records may be wrong.
        """
        path = self.records.path
        if _state(path) != self.state and file_digest(path) != self.digest:
            raise DataError(f"{path} changed while it was read; remove what was made of it and run again")


KnownFiles = dict[Path, KnownFile]
"""Record files that are known already: several parts take records of the same files."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes: its identity, wherever it lies.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check the name") from error


def _state(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check the name") from error
    return status.st_size, status.st_mtime_ns


def shard_records(settings: ShardSettings, out: Path, known: KnownFiles | None = None) -> ShardSummary:
    """Write the shards of a run, continue it, or find it done.

    Args:
        settings: of the run.
        out: folder of the run.
        known: record files by path; files that it lacks are added.

    Raises:
        DataError: a record file cannot be used, `out` cannot be written or holds another run, or a worker was killed.
    """
    known = {} if known is None else known
    chosen = choose_records(settings, known)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with lock_folder(out):
            _check_settings(settings, known, out)
            jobs = _split(settings, chosen, out)
            total = sum(len(numbers) for job in jobs for _, numbers, _ in job.shares)
            with (
                tqdm(total=total, unit="record", desc=out.name, file=sys.stderr, mininterval=0.2) as progress,
                worker_pool(min(len(jobs), usable_cores())) as pool,
            ):
                counts = list(run_jobs(_write_share, jobs, pool, on_progress=progress.update))
            for path, _ in settings.files:
                known[path].check_unchanged()
            num_samples = merge_indexes(out, [job.folder for job in jobs])
            num_skipped = sum(counts)
            return ShardSummary(num_samples, num_skipped, _merge_ledgers(jobs, out) if num_skipped else None)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}; use a folder you may write to") from error


def choose_records(settings: ShardSettings, known: KnownFiles) -> list[tuple[RecordFile, np.ndarray]]:
    """The record files of a run, each with the int64 numbers of its chosen records, ascending.

    Raises:
        DataError: a record file cannot be used.
    """
    files, chosen = [], []
    for path, sampling in settings.files:
        if path not in known:
            known[path] = KnownFile.of(path)
        records = known[path].records
        numbers = sampling.choose(len(records), settings.seed)
        files.append(records)
        chosen.append(numbers[records.has_image[numbers]] if settings.only_images else numbers)
    number, modulus = settings.part
    first = np.cumsum([0, *map(len, chosen)])
    return [
        (file, numbers[(number - start) % modulus :: modulus]) for file, numbers, start in zip(files, chosen, first)
    ]


def _check_settings(settings: ShardSettings, known: KnownFiles, out: Path) -> None:
    """Note the run's settings in the folder, or refuse a folder of another run."""
    wanted = {
        # A file's folder does not count, but its name does, because the shard rows hold it.
        "records": [
            [path.stem, known[path].digest, sampling.strategy, sampling.percent] for path, sampling in settings.files
        ],
        **{name: value for name, value in vars(settings).items() if name not in ("files", "media_root")},
    }
    text = json.dumps(wanted, indent=1) + "\n"
    path = out / SETTINGS_NAME
    remove_leftovers(out, (SETTINGS_NAME, LEDGER_NAME))
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    elif path.read_bytes() != text.encode():
        raise DataError(
            f"{out} holds shards of other records or settings ({path.name}); use another folder, or remove it to make "
            "them anew"
        )


def _split(settings: ShardSettings, chosen: list[tuple[RecordFile, np.ndarray]], out: Path) -> list[_Job]:
    total = sum(len(numbers) for _, numbers in chosen)
    edges = np.linspace(0, total, settings.num_workers + 1).astype(int)
    jobs = []
    for worker in range(settings.num_workers):
        shares, start = [], 0
        for records, numbers in chosen:
            share = numbers[max(edges[worker] - start, 0) : max(edges[worker + 1] - start, 0)]
            start += len(numbers)
            if len(share):
                shares.append((records.path, share, records.spans(share)))
        jobs.append(_Job(out / str(worker), settings, tuple(shares)))
    return jobs


def _write_share(job: _Job) -> int:
    """Write one worker's folder; returns the number of skipped records."""
    settings = job.settings
    with ShardWriter(
        job.folder,
        COLUMNS[settings.kind],
        size_limit_bytes=settings.size_limit_bytes,
        hashes=("sha1",),
    ) as writer:
        done = writer.position
        report_progress(done)
        for path, numbers, spans in job.shares:
            rest = slice(min(done, len(numbers)), None)
            done -= min(done, len(numbers))
            for number, record in zip(numbers[rest].tolist(), read_records(path, spans[rest])):
                try:
                    sample = writer.encode(_row(record, path.stem, settings))
                except HourLlavaError as error:
                    name = record.get("id") if isinstance(record, dict) else None
                    writer.skip({"file": str(path), "number": number, "id": name, "reason": str(error)})
                else:
                    writer.add(sample)
                report_progress(1)
        return writer.num_skipped


def _row(record: Any, source: str, settings: ShardSettings) -> dict[str, Any]:
    """The shard row of a record; a DataError gives the reason if there is none."""
    if isinstance(record, DataError):
        raise record
    if not isinstance(record, dict) or not is_conversation(record):
        raise DataError(
            "a record must be an object with a list 'conversations'; hourllava data group makes such of questions"
        )
    record = canonical_record(record)
    speakers = {turn["from"] for turn in record["conversations"]}
    if not speakers <= {"human", "gpt"}:
        raise DataError(f"a turn is of human or gpt, got {', '.join(sorted(speakers))}; see hourllava data check --fix")
    text = record if "source" in record else {**record, "source": source}
    if settings.kind == "video":
        return {"video": _video(record, settings), "text": text}
    if "video" in record:
        raise DataError("the record has a video; shard it with kind 'video'")
    names = media_names(record)
    if settings.kind == "image" and len(names) > 1:
        raise DataError(f"the record has {len(names)} images; shard it with kind 'images'")
    root = settings.media_root / settings.media_folder
    images = [_jpeg(name, root, record.get("data_source")) for name in names] or [_blank_jpeg()]
    return {"image": images if settings.kind == "images" else images[0], "text": text}


def _video(record: Mapping[str, Any], settings: ShardSettings) -> str:
    name = record.get("video")
    if not isinstance(name, str) or not PurePosixPath(name).name:
        raise DataError(f"'video' must be a path, got {name!r:.80}")
    if settings.video_suffix is not None:
        name = feature_name(name, settings.video_suffix)
    path = _find(name, settings.media_root / settings.media_folder, record.get("data_source"))
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}") from error
    if stat.S_ISREG(found.st_mode) and not found.st_size:
        raise DataError(f"{name} is empty (0 bytes)")
    return path.relative_to(settings.media_root).as_posix()


def _find(name: str, root: Path, data_source: object) -> Path:
    found = find_media(name, root, data_source)
    if found is None:
        raise DataError(f"{name} is missing")
    return root / found


def _jpeg(name: str, root: Path, data_source: object) -> bytes:
    """The image as a JPEG file: the bytes of an upright RGB JPEG, any other image converted."""
    try:
        data = _find(name, root, data_source).read_bytes()
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}") from error
    try:
        with open_picture(io.BytesIO(data)) as image:
            if image.format == "JPEG" and image.mode == "RGB" and is_upright(image):
                decode_jpeg(data)
                return data
            return encode_jpeg(upright_rgb(image))
    except UnidentifiedImageError as error:  # its message names only the address of our buffer
        raise DataError(f"{name} is not an image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} has more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller") from error
    except CODING_ERRORS as error:
        raise DataError(f"{name} is damaged, or of a form that is not read: {error}") from error


@cache
def _blank_jpeg() -> bytes:
    """The 1x1 image of shard rows without an image."""
    return encode_jpeg(Image.new("RGB", (1, 1)))


def _merge_ledgers(jobs: list[_Job], out: Path) -> Path:
    path = out / LEDGER_NAME
    with replacing(path) as temporary, temporary.open("wb") as file:
        for job in jobs:
            own = job.folder / LEDGER_NAME
            if own.exists():
                file.write(own.read_bytes())
    return path
