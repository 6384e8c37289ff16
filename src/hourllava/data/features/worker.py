"""One device's share of feature pre-extraction: decoding threads, the tower, a thread that writes.

    decoding thread k: video -> digest -> frames ---+
    decoding thread l: video -> digest -> frames ---+--> queue --> tower batches --> features of each video --> file

The queue is bounded, so decoders wait for the tower. The tower waits until a batch is full; all videos that are being
decoded fill it. Memory holds the features of these videos (0.53 GB for an hour, with SigLIP) and a few batches of
frames.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hourllava.data.features.files import MIN_RELEASED_FRAMES, FeatureSettings, is_made, write_features
from hourllava.data.features.items import Item, note_attempts, num_attempts
from hourllava.data.features.tower import Tower, load_tower
from hourllava.errors import HourLlavaError, InputError, VideoError
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.snapshot import WatchedSource
from hourllava.model.forgetting import evenly_spaced
from hourllava.video import Gap, probe, read_frames, source_state

READ_FRAMES = 16
MAX_UNWRITTEN = 2
LAST_PICTURE_SECONDS = 1e-3  # so long before a video's end, its last picture is on screen


@dataclass(frozen=True)
class WorkerSettings:
    """The settings of one device's process."""

    model: str
    device: str
    dtype: str
    batch_frames: int
    decoders: int
    settings: FeatureSettings


@dataclass(frozen=True)
class Finished:
    """The result for one video; `reason` is set if it failed."""

    video: str
    num_frames: int = 0
    kept: bool = False
    reason: str | None = None
    int8_error_share: float | None = None


@dataclass
class _Job:
    """A video that is being read or encoded."""

    video: Path
    out: Path
    digest: str
    fps: float = 0.0
    duration_seconds: float = 0.0
    gaps: tuple[Gap, ...] = ()
    player_offset_seconds: float = 0.0
    sample_seconds: list[np.ndarray] = field(default_factory=list)
    timestamps_seconds: list[np.ndarray] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)


class _End:
    """Stands in the queue behind the last frames of a video."""


_Piece = tuple[_Job, Tensor | _End]
NextVideo = Callable[[], tuple[Path, Path] | None]


def extract(worker: WorkerSettings, next_video: NextVideo, finished: Callable[[Finished], None]) -> None:
    """Encode videos until there are no more.

    Args:
        worker: device, model and settings.
        next_video: gives (video, file to write), or None at the end; several threads call it.
        finished: called with each result, in the caller's thread.

    Raises:
        HourLlavaError: the model cannot be loaded, or features cannot be written.
    """
    tower = load_tower(worker.model, torch.device(worker.device), getattr(torch, worker.dtype.removeprefix("torch.")),
                       worker.batch_frames)  # fmt: skip
    pieces: queue.Queue[_Piece | Finished | BaseException | None] = queue.Queue(maxsize=2 * worker.decoders)
    stopping = threading.Event()
    threads = [
        threading.Thread(target=_decode_all, args=(next_video, worker.settings, tower.image_pixels, pieces, stopping))
        for _ in range(worker.decoders)
    ]
    for thread in threads:
        thread.start()
    try:
        _encode_all(tower, pieces, worker, finished)
    finally:
        stopping.set()
        while any(thread.is_alive() for thread in threads):  # they may be waiting for room
            try:
                pieces.get(timeout=0.05)
            except queue.Empty:
                continue


def _encode_all(
    tower: Tower,
    pieces: "queue.Queue[_Piece | Finished | BaseException | None]",
    worker: WorkerSettings,
    finished: Callable[[Finished], None],
) -> None:
    waiting: deque[_Piece] = deque()
    encoded: tuple[Tensor, list[tuple[_Job, int]]] | None = None  # the device may still compute it
    writes: deque[Future[Finished]] = deque()
    num_decoding, num_frames = worker.decoders, 0

    def collect() -> None:
        """Give the features of the last batch to their videos."""
        nonlocal encoded
        if encoded is not None:
            rows = encoded[0].cpu().split([count for _, count in encoded[1]])
            for (job, _), part in zip(encoded[1], rows):
                job.features.append(part.clone())  # a view would keep the whole batch in memory
            encoded = None

    with ThreadPoolExecutor(1) as writer:
        while num_decoding or waiting:
            while waiting and isinstance(waiting[0][1], _End):
                collect()
                job = waiting.popleft()[0]
                if len(writes) == MAX_UNWRITTEN:
                    finished(writes.popleft().result())
                writes.append(writer.submit(_write, job, worker.settings, tower))
            while writes and writes[0].done():
                finished(writes.popleft().result())
            if num_decoding and num_frames < tower.batch_frames:
                piece = pieces.get()
                if piece is None:
                    num_decoding -= 1
                elif isinstance(piece, Finished):
                    finished(piece)
                elif isinstance(piece, BaseException):
                    raise piece
                else:
                    waiting.append(piece)
                    num_frames += len(piece[1]) if isinstance(piece[1], Tensor) else 0
            elif num_frames:
                frames, owners = _take(waiting, min(num_frames, tower.batch_frames))
                num_frames -= len(frames)
                features = tower.encode(frames)
                collect()  # the batch before, while the device computes this one
                encoded = features, owners
        for write in writes:
            finished(write.result())


def _take(waiting: deque[_Piece], count: int) -> tuple[Tensor, list[tuple[_Job, int]]]:
    """The first `count` waiting frames and their videos; ends of videos among them stay in the queue, in order."""
    taken: list[Tensor] = []
    owners: list[tuple[_Job, int]] = []
    ends: list[_Piece] = []
    while count:
        job, frames = waiting.popleft()
        if isinstance(frames, _End):
            ends.append((job, frames))
            continue
        if len(frames) > count:
            waiting.appendleft((job, frames[count:]))
            frames = frames[:count]
        taken.append(frames)
        owners.append((job, len(frames)))
        count -= len(frames)
    # The ends go to the front: all frames of these videos are in this batch or an earlier one.
    waiting.extendleft(reversed(ends))
    return torch.cat(taken), owners


def _write(job: _Job, settings: FeatureSettings, tower: Tower) -> Finished:
    features = torch.cat(job.features)
    timestamps_seconds, sample_seconds = np.concatenate(job.timestamps_seconds), np.concatenate(job.sample_seconds)
    num_frames = len(features)
    if settings.form == "released":
        # Damage, or a wrong length in the header, can give more or fewer frames than requested.
        chosen = evenly_spaced(num_frames, _released_frames(job.duration_seconds))
        features = features[torch.from_numpy(chosen)]
        timestamps_seconds = sample_seconds = np.arange(len(features), dtype=np.float64)  # not written
    try:
        memory = Memory(
            features,
            timestamps_seconds,
            sample_seconds,
            fps=job.fps,
            duration_seconds=job.duration_seconds,
            source=WatchedSource(str(job.video), job.digest),
            encoder=settings.encoder,
            gaps=job.gaps,
            player_offset_seconds=job.player_offset_seconds,
        )
    except InputError as error:  # times that go back: the video is at fault, not the run
        note_attempts(Item(job.video, job.out), 0)
        return Finished(str(job.video), reason=f"{job.video}: {error}")
    job.features.clear()
    error_share = write_features(job.out, memory, settings)
    note_attempts(Item(job.video, job.out), 0)
    return Finished(str(job.video), num_frames, int8_error_share=error_share)


def _decode_all(
    next_video: NextVideo,
    settings: FeatureSettings,
    image_pixels: int,
    pieces: "queue.Queue[_Piece | Finished | BaseException | None]",
    stopping: threading.Event,
) -> None:
    """A decoding thread."""
    try:
        while not stopping.is_set() and (item := next_video()) is not None:
            video, out = item
            try:
                state = source_state(video)
                if state.digest is None:
                    raise VideoError(f"{video} can be read once only, so it has no digest: save it to a file")
                if is_made(out, settings, state.digest):
                    note_attempts(Item(video, out), 0)
                    pieces.put(Finished(str(video), kept=True))
                    continue
                note_attempts(Item(video, out), num_attempts(Item(video, out)) + 1)
                job = _Job(video, out, state.digest)
                _decode(job, settings, image_pixels, pieces, stopping)
                if not state.is_unchanged():
                    raise VideoError(f"{video} grew while it was read: wait until it is complete, then retry")
                pieces.put((job, _End()))
            except HourLlavaError as error:
                note_attempts(Item(video, out), 0)
                pieces.put(Finished(str(video), reason=str(error)))
    except BaseException as error:  # noqa: BLE001 - the main thread raises it again
        pieces.put(error)
    pieces.put(None)


def _decode(
    job: _Job,
    settings: FeatureSettings,
    image_pixels: int,
    pieces: "queue.Queue[_Piece | Finished | BaseException | None]",
    stopping: threading.Event,
) -> None:
    """Put a video's frames into the queue.

    Raises:
        VideoError: it cannot be read to its end, or shows nothing. The frames sent before then have no use.
    """
    job.fps = settings.fps
    if settings.form == "released":
        length_seconds = probe(job.video).duration_seconds
        if not length_seconds:
            raise VideoError(f"{job.video} does not tell its length, which released files need; convert it")
        # The times k / fps then include the first picture and the last one, with even steps between.
        last_seconds = max(length_seconds - LAST_PICTURE_SECONDS, length_seconds / 2)
        job.fps = min((_released_frames(length_seconds) - 1) / last_seconds, 1000.0)
    shown_until = 0.0
    with read_frames(
        job.video, fps=job.fps, size_pixels=(image_pixels, image_pixels), num_processes=1, batch_frames=READ_FRAMES
    ) as reader:
        for batch in reader:
            if stopping.is_set():
                return
            job.sample_seconds.append(batch.sample_seconds)
            job.timestamps_seconds.append(batch.timestamps_seconds)
            shown_until = float(batch.sample_seconds[-1]) + 1 / job.fps
            pieces.put((job, torch.from_numpy(batch.frames)))
        length = reader.info.duration_seconds
        job.player_offset_seconds = reader.info.player_offset_seconds
        # As in `watch`: the length of the part that was read.
        job.duration_seconds = shown_until if length is None else min(shown_until, length)
        if settings.form == "released" and length is not None:
            job.duration_seconds = length
        job.gaps = tuple(reader.gaps)
    if not job.sample_seconds:
        raise VideoError(f"{job.video} shows nothing; copy or convert it again")


def _released_frames(duration_seconds: float) -> int:
    return max(int(duration_seconds), MIN_RELEASED_FRAMES)
