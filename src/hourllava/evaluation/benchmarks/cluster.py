"""`--engine ray`: the parts of videos are answered by all devices of a Ray cluster.

One actor for each GPU (for each machine, if there are no GPUs) loads the model and takes parts of videos from a common
queue; this process writes the answers as they come. All machines must see the data folder, the model and the folder of
memories under the same paths. RAY_ADDRESS or `ray start` names the cluster; by default it is this machine.

    pip install 'hourllava[ray]'
    hourllava eval video-mme data/Video-MME --out out --model jylins/hourllava-qwen25-3b-s2 --engine ray
"""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hourllava.data.features.ray import cluster_devices
from hourllava.data.features.worker import WorkerLostError
from hourllava.errors import HourLlavaError
from hourllava.evaluation.benchmarks.asking import Asking, Result, engine_for
from hourllava.evaluation.benchmarks.catalogue import find_benchmark
from hourllava.evaluation.benchmarks.runner import Part, answers_of_model
from hourllava.evaluation.scores import Condition
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import MemoryCache

_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class WorkerPlan:
    """What an actor needs, in a form that can be sent.

    Attributes:
        model, dtype: as `HourLlava.from_pretrained`.
        benchmark, protocol: names.
        subtitles, condition: as `Asking`.
        data: the benchmark's data folder.
        memories, max_bytes: of the folder of memories; None keeps none.
    """

    model: str
    dtype: torch.dtype | str | None
    benchmark: str
    protocol: str
    subtitles: bool
    condition: Condition
    data: Path
    memories: Path | None
    max_bytes: int | None

    @property
    def asking(self) -> Asking:
        """How it asks."""
        return Asking(find_benchmark(self.benchmark).protocols[self.protocol], self.subtitles, self.condition)


def answers_of_cluster(plan: WorkerPlan, parts: Sequence[Part]) -> Iterator[Result]:
    """The answers of all devices of the cluster, as they come.

    Args:
        plan: of each actor.
        parts: with the questions.

    Raises:
        ConfigError: ray is not installed.
        HourLlavaError: a worker cannot load the model.
        DataError: a worker was lost.
    """
    if not parts:
        return
    devices, cores = cluster_devices()
    ray, queues = importlib.import_module("ray"), importlib.import_module("ray.util.queue")
    devices = devices[: len(parts)]
    todo, done = queues.Queue(), queues.Queue()
    # Long videos first, so that no device begins the longest one at the end; each actor takes one None as its end.
    todo.put_nowait_batch(sorted(parts, key=_length, reverse=True))
    todo.put_nowait_batch([None] * len(devices))
    actors = [
        ray.remote(Device).options(num_cpus=cores, num_gpus=int(device.type == "cuda")).remote() for device in devices
    ]
    runs = [actor.run.remote(plan, device.type, todo, done) for actor, device in zip(actors, devices)]
    remaining = sum(len(part.questions) for part in parts)
    try:
        while remaining:
            try:
                result = done.get(timeout=_POLL_SECONDS)
            except queues.Empty:
                _check_alive(ray, runs)
                continue
            if isinstance(result, HourLlavaError):
                raise result
            yield result
            remaining -= 1
        ray.get(runs)
    finally:
        for actor in actors:
            ray.kill(actor)
        todo.shutdown(force=True)
        done.shutdown(force=True)


def _length(part: Part) -> float:
    return max((question.duration_seconds or 0.0 for question in part.questions), default=0.0)


class Device:
    """A device of the cluster."""

    def run(self, plan: WorkerPlan, device: str, todo: Any, done: Any) -> None:
        """Load the model, and answer parts until there are no more; an error that ends it goes into the queue, too."""
        try:
            with HourLlava.from_pretrained(plan.model, device=device, dtype=plan.dtype) as engine:
                asked = engine_for(engine, plan.condition)
                cache = None if plan.memories is None else MemoryCache(plan.memories, max_bytes=plan.max_bytes)
                for result in answers_of_model(asked, plan.data, plan.asking, cache, iter(todo.get, None)):
                    done.put(result)
        except HourLlavaError as error:
            done.put(error)


def _check_alive(ray: Any, runs: Sequence[Any]) -> None:
    ended, _ = ray.wait(list(runs), num_returns=len(runs), timeout=0)
    try:
        ray.get(ended)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise WorkerLostError(f"a worker of the Ray cluster ended ({reason}); run again to go on") from error
