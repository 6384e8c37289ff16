"""A Ray cluster, and workers of it that take items from one queue.

One worker for each GPU (for each machine, if there are no GPUs). All machines must see the folders of a job under the
same paths. RAY_ADDRESS or `ray start` names the cluster; by default it is this machine.

    pip install 'hourllava[ray]'
"""

import importlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hourllava.errors import ConfigError, DataError, HourLlavaError

_POLL_SECONDS = 1.0

Work = Callable[[Callable[[], Any], Callable[[Any], None]], None]
"""Called with `take`, which gives the next item and at the end None, and `give`, which takes a result."""


class WorkerLostError(DataError):
    """A worker process ended without an error message, perhaps killed for memory."""


@dataclass(frozen=True)
class Worker:
    """A worker of a cluster.

    Attributes:
        work: what it does; it travels to the worker.
        num_cpus, num_gpus: that it takes of its machine.
        num_takers: threads of `work` that take items; each gets a None at the end.
    """

    work: Work
    num_cpus: int
    num_gpus: int
    num_takers: int = 1


def ray_module(name: str = "ray") -> Any:
    """The package ray, or a module of it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError("a cluster needs the package ray; run: pip install 'hourllava[ray]'") from error


def join_cluster(**options: Any) -> Any:
    """The package ray, joined to the cluster that RAY_ADDRESS or `ray start` names, or to a new one of this machine.

    Args:
        options: of `ray.init`, for a process that has not joined yet.

    Raises:
        ConfigError: ray is not installed.
    """
    ray = ray_module()
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, **options)
    return ray


def cluster_devices() -> tuple[list[torch.device], int]:
    """The devices of a cluster, one for each worker, and the cores for each; starts or joins the cluster.

    Raises:
        ConfigError: ray is not installed.
    """
    ray = join_cluster()
    resources = ray.cluster_resources()
    num_gpus, num_machines = int(resources.get("GPU", 0)), sum(node["Alive"] for node in ray.nodes())
    devices = [torch.device("cuda", 0)] * num_gpus or [torch.device("cpu")] * num_machines
    return devices, max(1, int(resources["CPU"]) // len(devices))


def results_of_cluster(workers: Sequence[Worker], items: Sequence[Any], num_results: int) -> Generator[Any, None, None]:
    """What the workers give, as it comes. Workers end with the iterator.

    Args:
        workers: of the cluster.
        items: in the order in which they are taken.
        num_results: that all items give together.

    Raises:
        HourLlavaError: raised by a worker.
        DataError: a worker was lost.
    """
    ray, queues = ray_module(), ray_module("ray.util.queue")
    todo, done = queues.Queue(), queues.Queue()
    todo.put_nowait_batch(list(items))
    todo.put_nowait_batch([None] * sum(worker.num_takers for worker in workers))
    actors = [
        ray.remote(_Actor).options(num_cpus=worker.num_cpus, num_gpus=worker.num_gpus).remote() for worker in workers
    ]
    runs = [actor.run.remote(worker.work, todo, done) for actor, worker in zip(actors, workers)]
    remaining = num_results
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


class _Actor:
    """A worker, in its own process."""

    def run(self, work: Work, todo: Any, done: Any) -> None:
        """Do the work; an error that ends it goes into the queue, too."""
        try:
            work(todo.get, done.put)
        except HourLlavaError as error:
            done.put(error)


def _check_alive(ray: Any, runs: Sequence[Any]) -> None:
    ended, _ = ray.wait(list(runs), num_returns=len(runs), timeout=0)
    try:
        ray.get(ended)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise WorkerLostError(f"a worker of the Ray cluster ended ({reason}); run again to go on") from error
