"""Frames on their way to the tower: in order, the same to the last bit, and never more than a few batches ahead."""

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples, tiny_config, tiny_model
from hourllava.inference.engine import HourLlava
from hourllava.inference.watching.frame_encoder import FrameEncoder, in_flight
from hourllava.inference.watching.growing import VideoPart
from hourllava.inference.watching.watcher import Watcher
from hourllava.model.devices import HostCopy
from inference.encoding import encoding_at_once
from video.clips import write_clip


def number(k: int) -> HostCopy:
    return HostCopy(torch.tensor(k))


@examples(20)
@given(num_batches=st.integers(0, 12), num_ahead=st.integers(0, 3), seed=st.integers(0, 99))
def test_batches_come_in_order_and_few_are_ahead(num_batches: int, num_ahead: int, seed: int) -> None:
    chance, ahead = random.Random(seed), []
    handed_over: list[int] = []
    with ThreadPoolExecutor(3) as threads:

        def encode(batch: int) -> Future[HostCopy]:
            handed_over.append(batch)
            return threads.submit(lambda: (threading.Event().wait(chance.random() / 1000), number(batch))[1])

        results = []
        for batch, features in in_flight(iter(range(num_batches)), encode, num_ahead):
            ahead.append(len(handed_over) - len(results))
            results.append((batch, int(features)))
    assert results == [(k, k) for k in range(num_batches)]
    assert handed_over == list(range(num_batches))
    assert max(ahead, default=0) <= num_ahead + 1


class Impatient(Future[HostCopy]):
    """A future that fails after a while, so that a test that waits in vain ends."""

    def result(self, timeout: float | None = 5) -> HostCopy:
        return super().result(timeout)


def test_the_next_batch_is_handed_over_while_one_is_encoded() -> None:
    """A batch is encoded only when the next two have been handed over; waiting for each would never end."""
    futures: list[Impatient] = []

    def batches() -> Iterator[int]:
        yield from range(6)
        for k in (4, 5):
            futures[k].set_result(number(k))

    def encode(batch: int) -> Future[HostCopy]:
        futures.append(Impatient())
        if batch >= 2:
            futures[batch - 2].set_result(number(batch - 2))
        return futures[-1]

    assert [batch for batch, _ in in_flight(batches(), encode)] == list(range(6))


def test_what_was_handed_over_is_given_back() -> None:
    futures: list[Future[HostCopy]] = []

    def encode(batch: int) -> Future[HostCopy]:
        futures.append(Future())
        if batch == 2:
            futures[0].set_result(number(0))
        return futures[-1]

    flight = in_flight(range(9), encode)
    assert next(flight)[0] == 0
    flight.close()
    assert [future.cancelled() for future in futures] == [False, True, True]


def test_given_and_own_threads_encode_the_same(engine: HourLlava, clips: dict[str, Path]) -> None:
    """To the last bit, and the same as batches encoded one after the other."""
    encoder, batches = FrameEncoder(engine.model), []
    encode = encoding_at_once(encoder)

    def at_once(frames: torch.Tensor) -> Future[HostCopy]:
        batches.append(frames)
        return encode(frames)

    expected = engine.watch(clips["long"], fps=10, progress=False).features
    job = Watcher(encoder, at_once).start(VideoPart(clips["long"], fps=10))
    assert torch.equal(job.result().features, expected)
    assert [len(batch) for batch in batches] == [32, 32, 14]
    assert torch.equal(torch.cat([encoder.launch(batch).wait() for batch in batches]), expected)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("failing", [0, 2])
@pytest.mark.parametrize("way", ["watch", "follow", "remember_frames"])
def test_a_batch_that_cannot_be_encoded_is_its_own_error(
    engine: HourLlava, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, way: str, failing: int
) -> None:
    error, calls = RuntimeError("the device is on fire"), []
    tower = engine.model.model
    encode = tower.get_video_features

    def fail(pixels: torch.Tensor) -> object:
        calls.append(len(pixels))
        if len(calls) > failing:
            raise error
        return encode(pixels)

    monkeypatch.setattr(tower, "get_video_features", fail)
    frames = np.zeros((90, 24, 24, 3), np.uint8)
    ways = {
        "watch": lambda: engine.watch(clips["long"], fps=10, progress=False),
        "follow": lambda: list(engine.follow(clips["long"], fps=10)),
        "remember_frames": lambda: engine.remember_frames(frames, np.arange(90.0)),
    }
    with pytest.raises(RuntimeError) as raised:
        ways[way]()
    assert raised.value is error


def test_a_live_frame_is_remembered_before_the_next_one_comes(engine: HourLlava, tmp_path: Path) -> None:
    """The writer of a pipe waits until what it has written is remembered."""
    data = write_clip(tmp_path / "clip.ts", 600, 10, options={"g": "10"}).read_bytes()
    pipe, go_on = tmp_path / "live", threading.Event()
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb") as file:
            file.write(data[: len(data) * 2 // 3])
            file.flush()
            assert go_on.wait(30)
            file.write(data[len(data) * 2 // 3 :])

    writer = threading.Thread(target=write)
    writer.start()
    lengths = []
    for memory in engine.follow(pipe):
        lengths.append(len(memory))
        go_on.set()
    writer.join()
    assert 0 < lengths[0] < lengths[-1] == 60


@pytest.mark.gpu
def test_a_gpu_is_not_waited_for() -> None:
    """The features that come later are those of a call that waits, to the last bit."""
    encoder = FrameEncoder(tiny_model(tiny_config()).float().to("cuda"))
    frames = torch.randint(0, 256, (4, 32, 24, 24, 3), dtype=torch.uint8)
    staged = [encoder.staged(batch) for batch in frames]
    # At once, so that pinned memory for four results is there: to get more of it waits for the GPU.
    expected = [each.wait().clone() for each in [encoder.launch(batch) for batch in staged]]
    torch.cuda.synchronize()
    torch.cuda._sleep(10**9)  # the GPU is busy for about a second
    launched = [encoder.launch(batch) for batch in staged]
    assert not any(each.is_here for each in launched)
    assert all(torch.equal(each.wait(), whole) for each, whole in zip(launched, expected))
    assert all(each.is_here for each in launched)
    encode = encoding_at_once(encoder)
    flight = in_flight(frames, lambda batch: encode(encoder.staged(batch)))
    assert all(torch.equal(features, whole) for (_, features), whole in zip(flight, expected))
