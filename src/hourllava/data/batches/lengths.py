"""Lengths of all shard rows of a data set, for the batch plan: read beside the shards, or measured once.

`lengths.npy` beside an index counts only if `lengths.json` names the same tokenizer, sizes and choice of questions
(`RowEncoder.settings`). Otherwise several processes measure all shard rows. Each measured piece is kept in a cache
folder, so a run that was stopped goes on from there. Lengths beside an index that were measured for another number of
recall tokens serve too: the difference is added for each question.
"""

import hashlib
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hourllava.data.batches.cost import Lengths, kept_of_question
from hourllava.data.batches.samples import RECALL_SETTING, RowEncoder
from hourllava.data.mds.format import parse_lengths
from hourllava.data.mds.merge import Measured, write_lengths
from hourllava.data.mds.reader import MdsDataset
from hourllava.errors import DataError, HourLlavaError
from hourllava.files import replacing
from hourllava.model.config import HourLlavaConfig
from hourllava.model.nano import NANO, nano_processor
from hourllava.model.processor import HourLlavaProcessor
from hourllava.processes import run_jobs, worker_pool

UNKNOWN = (0, 0, 1)
"""The lengths of a row that cannot be measured; no real row is as short. The loader fails on it and notes it."""

PIECE_ROWS = 1024
CACHE_NAME = "lengths.partial"

logger = logging.getLogger(__name__)


def stream_lengths(dataset: MdsDataset, encoder: RowEncoder, cache: Path, *, num_processes: int) -> Lengths:
    """int32 [N, 3]: views, kept visual tokens and text tokens of every row.

    A row that cannot be measured is `UNKNOWN`. It is warned of, and the next call measures it again.

    Args:
        dataset: training shards.
        encoder: of the model that is trained.
        cache: folder for measured lengths.
        num_processes: that measure.

    Raises:
        DataError: the cache cannot be written, or a measuring process was killed.
    """
    key = hashlib.sha256(json.dumps([dataset.fingerprint(), encoder.settings], sort_keys=True).encode()).hexdigest()
    whole, pieces = cache / f"{key[:32]}.npy", cache / key[:32]
    try:
        beside, settings = dataset.lengths_settings(), encoder.settings
        lengths = dataset.lengths() if beside == settings else _load(whole, len(dataset))
        if lengths is None and beside and _without_recall(beside) == _without_recall(settings):
            num_measured = beside.get(RECALL_SETTING, 0)
            lengths = with_recall_tokens(
                dataset.lengths(), dataset.has_column("video"), encoder.processor.config, num_measured
            )
        if lengths is None:
            pieces.mkdir(parents=True, exist_ok=True)
            lengths = _load_pieces(pieces, len(dataset))
        unknown = np.flatnonzero(_is_unknown(lengths))
        if len(unknown):
            _measure_rows(dataset, encoder, lengths, unknown, pieces, num_processes)
            _save(whole, lengths)
        shutil.rmtree(pieces, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{cache} cannot be written ({error.strerror}); use a folder you may write to") from error
    return lengths


def _without_recall(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != RECALL_SETTING}


def with_recall_tokens(lengths: Lengths, is_video: np.ndarray, config: HourLlavaConfig, num_measured: int) -> Lengths:
    """Lengths that were measured for another number of recall tokens, with those of the model for each question.

    Rows of images that a model may tile, and rows whose texts may be cut, become `UNKNOWN`.

    Args:
        lengths: [N, 3].
        is_video: [N] whether a row is a video.
        config: of the model.
        num_measured: recall tokens of each question in `lengths`.
    """
    views, visual, text = lengths.astype(np.int64).T
    num_recall = config.memaug.num_recall_tokens
    kept = kept_of_question(lengths, config, is_video=is_video)
    num_questions = visual // np.maximum(kept + num_measured, 1)
    is_exact = (is_video | (config.max_image_tiles == 1)) & (num_questions * (kept + num_measured) == visual)
    limit = config.max_sequence_tokens
    is_whole = (kept + num_measured + text < limit) & (kept + num_recall + text <= limit)  # a cut text is at the limit
    changed = np.stack([views, (kept + num_recall) * num_questions, text], axis=1).astype(lengths.dtype)
    is_sure = ((is_exact & is_whole) | (views == 0)) & ~_is_unknown(lengths)
    return np.where(is_sure[:, None], changed, np.array(UNKNOWN, lengths.dtype))


def measure_folder(folder: Path, encoder: RowEncoder, *, num_processes: int) -> tuple[int, int]:
    """Write `lengths.npy` and `lengths.json` beside a folder's index, unless those there are right.

    Returns (rows, rows that cannot be measured).

    Raises:
        DataError: the folder has no index or cannot be written.
    """
    cache = folder / CACHE_NAME
    lengths = stream_lengths(MdsDataset(folder), encoder, cache, num_processes=num_processes)
    try:
        write_lengths(folder, Measured(lengths, encoder.settings))
        shutil.rmtree(cache, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror}); use a folder you may write to") from error
    return len(lengths), int(_is_unknown(lengths).sum())


def load_processor(model: str) -> HourLlavaProcessor:
    """The processor of "nano", of a checkpoint's folder, or of a name on the hub."""
    return nano_processor() if model == NANO else HourLlavaProcessor.from_pretrained(model)


def _is_unknown(lengths: Lengths) -> np.ndarray:
    return (lengths == UNKNOWN).all(axis=1)


def _measure_rows(
    dataset: MdsDataset, encoder: RowEncoder, lengths: Lengths, rows: np.ndarray, folder: Path, num_processes: int
) -> None:
    """Fill in the lengths of some rows, and save every piece that is done."""
    folder.mkdir(parents=True, exist_ok=True)
    owners = rows // PIECE_ROWS
    pieces = [rows[owners == owner].tolist() for owner in np.unique(owners)]
    reasons: list[str] = []
    with (
        tqdm(total=len(lengths), initial=len(lengths) - len(rows), unit="row", desc="lengths", file=sys.stderr) as bar,
        worker_pool(max(1, min(num_processes, len(pieces))), dataset, encoder) as pool,
    ):
        for numbers, found, reason in run_jobs(_measure, pieces, pool, in_order=False):
            lengths[numbers] = found
            start = numbers[0] // PIECE_ROWS * PIECE_ROWS
            _save(folder / f"{start}.npy", lengths[start : start + PIECE_ROWS])
            bar.update(len(numbers))
            reasons += [reason] if reason else []
    if reasons:
        count = int(_is_unknown(lengths).sum())
        logger.warning("%d of %d rows cannot be measured, training will skip them; %s", count, len(lengths), reasons[0])


def _measure(numbers: list[int], dataset: MdsDataset, encoder: RowEncoder) -> tuple[list[int], Lengths, str]:
    """Rows, their lengths, and why one of them could not be measured."""
    lengths, reason = [], ""
    for number in numbers:
        try:
            lengths.append(encoder.lengths(dataset.row(number, decode_images=False)))
        except HourLlavaError as error:
            lengths.append(UNKNOWN)
            reason = reason or f"row {number}: {error}"
    return numbers, np.array(lengths, np.int32), reason


def _load_pieces(folder: Path, num_rows: int) -> Lengths:
    """The lengths that an interrupted run has measured; all others are unknown."""
    lengths = np.full((num_rows, 3), UNKNOWN, np.int32)
    for start in range(0, num_rows, PIECE_ROWS):
        part = _load(folder / f"{start}.npy", min(PIECE_ROWS, num_rows - start))
        if part is not None:
            lengths[start : start + PIECE_ROWS] = part
    return lengths


def _load(path: Path, num_rows: int) -> Lengths | None:
    try:
        return parse_lengths(path.read_bytes(), str(path), num_rows)
    except (FileNotFoundError, DataError):
        return None  # not there, or cut short by a power cut: measure again


def _save(path: Path, lengths: Lengths) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, lengths)
