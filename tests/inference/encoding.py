"""An `Encode` for tests: frames are encoded in the thread that hands them over."""

from concurrent.futures import Future

import torch

from hourllava.inference.watching.frame_encoder import Encode, FrameEncoder
from hourllava.model.devices import HostCopy


def encoding_at_once(encoder: FrameEncoder) -> Encode:
    """Gives futures that have their results."""

    def encode(frames: torch.Tensor) -> Future[HostCopy]:
        future: Future[HostCopy] = Future()
        future.set_result(encoder.launch(frames))
        return future

    return encode
