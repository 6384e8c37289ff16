"""Frames to features: the vision tower gets a batch at a time, and nobody waits while it works.

The thread that owns the device calls `FrameEncoder.launch`. All others hand their frames over to it with an `Encode`,
which gives a future, and collect the results with `in_flight`.
"""

import functools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hourllava.errors import Cancelled
from hourllava.inference.memories.encoder import EncoderIdentity, encoder_identity
from hourllava.model.devices import HostCopy, check_fork
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.vision import frame_pixels
from hourllava.video.child import STOP_SECONDS, Stop

BATCHES_AHEAD = 2
"""How many batches of one video wait for the tower or are in it while the next one is read."""

Batch = TypeVar("Batch")


Encode = Callable[[Tensor], Future[HostCopy]]
"""Hands frames, uint8 [N, H, W, 3], to the thread that owns the device. Any thread may call it, and cancel a future."""


class FrameEncoder:
    """The vision tower of a model.

    Args:
        model: in evaluation mode, on its device.
    """

    def __init__(self, model: HourLlavaForConditionalGeneration) -> None:
        self.model = model
        self._process = os.getpid()

    @functools.cached_property
    def identity(self) -> EncoderIdentity:
        """Identity of the tower; it is computed once, from weights that are copied from the device."""
        check_fork(self._process, self.model.device)
        return encoder_identity(self.model.model)

    def staged(self, frames_NHW3: npt.NDArray[np.uint8] | Tensor) -> Tensor:
        """Frames from which a GPU can copy without a wait. Any thread may call it."""
        frames, device = torch.as_tensor(frames_NHW3), self.model.device
        if device.type != "cuda" or frames.device.type != "cpu":
            return frames
        with torch.cuda.device(device):
            return frames.pin_memory()

    @torch.inference_mode()
    def launch(self, frames_NHW3: Tensor) -> HostCopy:
        """Give frames to the tower. On a GPU this does not wait for the result, if the frames are `staged`.

        Args:
            frames_NHW3: uint8 [N, H, W, 3].

        Returns:
            [N, grid * grid, C] bfloat16, on their way to the host.
        """
        check_fork(self._process, self.model.device)
        pixels = frame_pixels(frames_NHW3.to(self.model.device, non_blocking=True), self.model.config)
        features: Tensor = self.model.model.get_video_features(pixels).pooler_output
        features = features.bfloat16()  # as memories keep them
        return HostCopy(features)


def in_flight(
    batches: Iterable[Batch],
    encode: Callable[[Batch], Future[HostCopy]],
    num_ahead: int = BATCHES_AHEAD,
    stop: Stop | None = None,
) -> Generator[tuple[Batch, Tensor], None, None]:
    """Batches with their features, in order. The next ones are taken and handed over before the first is encoded.

    Close the iterator to give back what has been handed over.

    Args:
        batches: may take time to come.
        encode: hands a batch over.
        num_ahead: number of batches that may be encoded while the next one is taken.
        stop: another thread sets it to end this; a batch that is in the tower is not waited for.

    Raises:
        Cancelled: `stop` was set.
    """
    waiting: deque[tuple[Batch, Future[HostCopy]]] = deque()
    try:
        for batch in batches:
            waiting.append((batch, encode(batch)))
            while waiting and (len(waiting) > num_ahead or _is_there(waiting[0][1])):
                first, future = waiting.popleft()
                yield first, _result(future, stop)
        while waiting:
            first, future = waiting.popleft()
            yield first, _result(future, stop)
    finally:
        for _, future in waiting:
            future.cancel()


def _is_there(future: Future[HostCopy]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None or future.result().is_here)


def _result(future: Future[HostCopy], stop: Stop | None) -> Tensor:
    while stop is not None and not wait([future], STOP_SECONDS).done:
        if stop.is_set():
            future.cancel()
            raise Cancelled("encoding frames was cancelled")
    return future.result().wait()
