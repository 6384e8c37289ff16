"""Watching: decode a video, encode its frames, keep their features as a memory.

    watcher = Watcher(model)
    memory = watcher.watch(VideoPart("lecture.mp4", end_seconds=600.0))

Child processes decode, this process reads their frames, and the vision tower encodes them, all at the same time. A few
batches of frames are on the way, so what is in use beside the memory does not depend on the length of the video.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hourllava.errors import InputError, MemoryFileError, VideoError
from hourllava.inference.cache import MemoryCache
from hourllava.inference.continuing import num_remembered, resume_seconds
from hourllava.inference.encoder import EncoderIdentity
from hourllava.inference.frame_encoder import (
    BATCHES_AHEAD,
    Encode,
    EncodedFrames,
    FrameEncoder,
    encoding_thread,
    in_flight,
)
from hourllava.inference.memory import Memory
from hourllava.inference.snapshot import MemorySnapshot, WatchedSource
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.video import FrameBatch, FrameReader, Gap, SourceState, read_frames, shown_name, source_state
from hourllava.video.reader import BATCH_FRAMES, check_sampling
from hourllava.video.source import SourceKind

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoPart:
    """Which part of a video is watched, and how densely.

    Attributes:
        video: as for `HourLlava.watch`.
        fps: frames sampled per second.
        start_seconds, end_seconds: on the player's clock; None stands for the video's end.
        allow_network: whether a URL may be opened.
        allow_playlists: whether a playlist may be opened.

    Raises:
        ConfigError: a number is outside what is allowed.
    """

    video: str | Path
    fps: float = 1.0
    start_seconds: float = 0.0
    end_seconds: float | None = None
    allow_network: bool = False
    allow_playlists: bool = False

    def __post_init__(self) -> None:
        check_sampling(self.fps, self.start_seconds, self.end_seconds)


class Watcher:
    """Makes memories with the vision tower of one model.

    Args:
        model: in evaluation mode, on its device.
        encode: hands frames to the thread that owns the device, which calls `Watcher.frame_encoder.launch`; None: each
            call has a thread of its own for that.

    Attributes:
        frame_encoder: the tower.
    """

    def __init__(self, model: HourLlavaForConditionalGeneration, encode: Encode | None = None) -> None:
        self.model = model
        self.frame_encoder = FrameEncoder(model)
        self._encode = encode

    @property
    def encoder(self) -> EncoderIdentity:
        """Identity of the tower; it is computed once."""
        return self.frame_encoder.identity

    def watch(
        self,
        part: VideoPart,
        *,
        memory: Memory | None = None,
        cache: MemoryCache | None = None,
        progress: bool = False,
    ) -> Memory:
        """The memory of a part of a video; see `HourLlava.watch`."""
        # The digest is taken before anything is read: the cache must keep a memory under the digest of its content.
        state = source_state(
            part.video,
            allow_network=part.allow_network,
            allow_playlists=part.allow_playlists,
            ask_server=cache is not None and memory is None,
        )
        key = None
        if memory is not None:
            memory.check_fits(self.encoder, fps=part.fps)
        elif cache is not None:
            key = self._cache_key(part, state, cache)
            if key is not None and (cached := cache.get(key)) is not None:
                if state.source.kind is not SourceKind.URL:
                    state.is_unchanged()  # raises if the file is another one by now
                return cached
        source = WatchedSource(shown_name(part.video), state.digest)
        for longer in self._read(part, memory, source, progress):
            memory = longer
        if memory is None:
            end = "its end" if part.end_seconds is None else f"{part.end_seconds:g} s"
            raise VideoError(f"{source.name} shows nothing from {part.start_seconds:g} s to {end}; choose another part")
        if state.digest is not None and not state.is_unchanged():
            _note(memory, source=WatchedSource(source.name, None))
            if key is not None:
                _log.warning("the memory is not kept: %s grew or changed while it was read", source.name)
            key = None
        if cache is not None and key is not None:
            try:
                cache.put(key, memory)
            except MemoryFileError as error:  # a full disk must not cost the answer
                _log.warning("the memory is not kept for the next time: %s", error)
        return memory

    def follow(self, part: VideoPart, *, progress: bool = False) -> Iterator[Memory]:
        """The growing memory of a part of a video, after every batch of frames; see `HourLlava.follow`."""
        yield from self._read(part, None, WatchedSource(shown_name(part.video), None), progress)

    def remember_frames(
        self, frames: Tensor | np.ndarray, timestamps_seconds: Sequence[float], duration_seconds: float | None
    ) -> Memory:
        """The memory of given frames; see `HourLlava.remember_frames`."""
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype not in (torch.uint8, np.uint8):
            raise InputError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
        times = np.asarray(timestamps_seconds, np.float64)
        if len(times) != len(frames) or not len(times):
            raise InputError(
                f"got {len(frames)} frames and {len(times)} times; give one time for each frame, at least one"
            )
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        memory = self._empty_memory(1.0 / step if step > 0 else 1.0, WatchedSource("frames", None))
        length = float(times[-1] - times[0] + step) if duration_seconds is None else duration_seconds
        batches = torch.as_tensor(frames).split(BATCH_FRAMES)
        with (
            self._encoding() as encode,
            closing(in_flight(batches, lambda batch: encode(self.frame_encoder.staged(batch)))) as encoded,
        ):
            for batch, features in encoded:
                new = times[len(memory) : len(memory) + len(batch)]
                memory.append(features, new, new, duration_seconds=length)
        return memory

    def _encoding(self) -> AbstractContextManager[Encode]:
        return encoding_thread(self.frame_encoder) if self._encode is None else nullcontext(self._encode)

    def _cache_key(self, part: VideoPart, state: SourceState, cache: MemoryCache) -> str | None:
        if state.digest is None:
            _log.warning("the memory is not kept: nothing identifies the content of %s", state.source.location)
            return None
        return cache.key(state.digest, part.fps, self.encoder, part.start_seconds, part.end_seconds)

    def _read(self, part: VideoPart, memory: Memory | None, source: WatchedSource, progress: bool) -> Iterator[Memory]:
        """Encode the frames of a part and append them to `memory`, or to a new one; yield it after every batch."""
        old = memory.snapshot() if memory is not None and len(memory) else None
        with self._encoding() as encode:
            reader, start_seconds, end_seconds = self._open(part, old)

            def hand_over(batch: FrameBatch) -> Future[EncodedFrames]:
                return encode(self.frame_encoder.staged(batch.frames))

            # A live source may be silent for long, so its frames are remembered before the next ones come.
            num_ahead = 0 if reader.info.is_live else BATCHES_AHEAD
            with (
                reader,
                _progress_bar(reader, part.fps, start_seconds, end_seconds, progress) as bar,
                closing(in_flight(reader, hand_over, num_ahead)) as encoded,
            ):
                for batch, features in encoded:
                    bar.update(len(batch))
                    num_known = 0 if old is None else num_remembered(old, features, batch)
                    old = None
                    if memory is None:
                        memory = self._empty_memory(part.fps, source)
                    if num_known < len(batch):
                        _append(memory, batch, features, num_known, reader, source)
                        yield memory
                if old is not None:
                    num_remembered(old, torch.empty(0), None)
                if memory is not None:
                    _note(memory, gaps=[gap for gap in reader.gaps if gap not in memory.gaps])

    def _empty_memory(self, fps: float, source: WatchedSource) -> Memory:
        features = torch.empty(0, *self.encoder.frame_shape, dtype=torch.bfloat16)
        return Memory(features, [], [], fps=fps, duration_seconds=0.0, source=source, encoder=self.encoder)

    def _open(self, part: VideoPart, memory: MemorySnapshot | None) -> tuple[FrameReader, float, float | None]:
        """A reader of the part, and the part's start and end counted from the first picture, as the reader counts.

        With a memory, the reader starts at the last remembered frames: they are read again and compared.
        """
        size = self.model.config.vision_config.image_size

        def read(start: float, end: float | None) -> FrameReader:
            return read_frames(
                part.video,
                fps=part.fps,
                start_seconds=start,
                end_seconds=end,
                size_pixels=(size, size),
                allow_network=part.allow_network,
                allow_playlists=part.allow_playlists,
            )

        def bounds(offset_seconds: float) -> tuple[float, float | None]:
            start = max(0.0, part.start_seconds - offset_seconds)
            end = None if part.end_seconds is None else max(0.0, part.end_seconds - offset_seconds)
            if memory is not None:
                start = max(0.0, resume_seconds(memory))
                end = None if end is None else max(end, float(memory.sample_seconds[-1]) + 0.5 / part.fps)
            return start, end

        reader = read(*bounds(0.0))
        exact = bounds(reader.info.player_offset_seconds)
        if exact != bounds(0.0):  # the reader has just found that sound comes before the first picture
            reader.close()
            if reader.info.is_live:
                raise VideoError(
                    f"{shown_name(part.video)} can be read only once, and its sound begins before its pictures, so "
                    "no part of it can be found: save it to a file, or watch all of it"
                )
            reader = read(*exact)
        return reader, *exact


def _append(
    memory: Memory, batch: FrameBatch, features: Tensor, num_known: int, reader: FrameReader, source: WatchedSource
) -> None:
    """Append a batch, without its first frames if the memory knows them."""
    first_seconds = float((memory if len(memory) else batch).sample_seconds[0])
    shown_until = float(batch.sample_seconds[-1]) + 1.0 / memory.fps
    known_end = reader.info.duration_seconds
    duration = (shown_until if known_end is None else min(shown_until, known_end)) - first_seconds
    memory.append(
        features[num_known:],
        batch.timestamps_seconds[num_known:],
        batch.sample_seconds[num_known:],
        duration_seconds=duration,
        source=source,
        player_offset_seconds=reader.info.player_offset_seconds,
    )


def _note(memory: Memory, gaps: Sequence[Gap] = (), source: WatchedSource | None = None) -> None:
    """Tell a memory what is known of its video, without frames."""
    memory.append(memory.features[:0], [], [], duration_seconds=memory.duration_seconds, gaps=gaps, source=source)


def _progress_bar(
    reader: FrameReader, fps: float, start_seconds: float, end_seconds: float | None, progress: bool
) -> tqdm:
    end = reader.info.duration_seconds if end_seconds is None else end_seconds
    total = None if end is None else max(1, round((end - start_seconds) * fps))
    return tqdm(total=total, unit="frame", desc="watching", disable=not progress)
