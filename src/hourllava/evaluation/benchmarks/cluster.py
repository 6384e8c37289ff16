"""`--engine ray`: the parts of videos are answered by all devices of a Ray cluster.

Every worker loads the model and takes parts of videos; this process writes the answers as they come. All machines must
see the data folder, the model and the folder of memories under the same paths.

    pip install 'hourllava[ray]'
    hourllava eval video-mme data/Video-MME --out out --model jylins/hourllava-qwen25-3b-s2 --engine ray
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hourllava.cluster import Worker, cluster_devices, results_of_cluster
from hourllava.evaluation.benchmarks.asking import Asking, Result, engine_for
from hourllava.evaluation.benchmarks.catalogue import find_benchmark
from hourllava.evaluation.benchmarks.runner import Part, answers_of_model
from hourllava.evaluation.scores import Condition
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import MemoryCache


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker needs, in a form that can be sent.

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
        plan: of each worker.
        parts: with the questions.

    Raises:
        ConfigError: ray is not installed.
        HourLlavaError: a worker cannot load the model.
        DataError: a worker was lost.
    """
    if not parts:
        return
    devices, cores = cluster_devices()
    workers = [
        Worker(functools.partial(_answer, plan, device.type), num_cpus=cores, num_gpus=int(device.type == "cuda"))
        for device in devices[: len(parts)]
    ]
    # Long videos first, so that no device begins the longest one at the end.
    longest_first = sorted(parts, key=_length, reverse=True)
    yield from results_of_cluster(workers, longest_first, sum(len(part.questions) for part in parts))


def _length(part: Part) -> float:
    return max((question.duration_seconds or 0.0 for question in part.questions), default=0.0)


def _answer(plan: WorkerPlan, device: str, take: Callable[[], Part | None], give: Callable[[Result], None]) -> None:
    """A worker: load the model, and answer parts until there are no more."""
    with HourLlava.from_pretrained(plan.model, device=device, dtype=plan.dtype) as engine:
        asked = engine_for(engine, plan.condition)
        cache = None if plan.memories is None else MemoryCache(plan.memories, max_bytes=plan.max_bytes)
        for result in answers_of_model(asked, plan.data, plan.asking, cache, iter(take, None)):
            give(result)
