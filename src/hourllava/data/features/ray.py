"""`hourllava data features --engine ray`: the same files, made by all devices of a Ray cluster.

One actor for each GPU (for each machine, if there are no GPUs) takes videos from a common queue. All machines must see
the folders under the same paths. RAY_ADDRESS or `ray start` names the cluster; by default it is this machine.

    pip install 'hourllava[ray]'
    hourllava data features videos --model jylins/hourllava-qwen25-3b-s2 --out features --engine ray
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hourllava.data.features.items import Item
from hourllava.data.features.worker import Finished, WorkerLostError, WorkerSettings, extract
from hourllava.errors import ConfigError, HourLlavaError

_POLL_SECONDS = 1.0


def cluster_devices() -> tuple[list[torch.device], int]:
    """The devices of a cluster, one for each worker, and the cores for each; starts or joins the cluster.

    Raises:
        ConfigError: ray is not installed.
    """
    ray = _ray()
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    resources = ray.cluster_resources()
    num_gpus, num_machines = int(resources.get("GPU", 0)), sum(node["Alive"] for node in ray.nodes())
    devices = [torch.device("cuda", 0)] * num_gpus or [torch.device("cpu")] * num_machines
    return devices, max(1, int(resources["CPU"]) // len(devices))


def run_on_ray(items: list[Item], workers: list[WorkerSettings], finished: Callable[[Finished], None]) -> None:
    """Encode the videos on the cluster and call `finished` in this process with each result.

    Raises:
        HourLlavaError: a worker cannot load the model or write features.
        DataError: a worker was lost.
    """
    ray = _ray()
    queues = importlib.import_module("ray.util.queue")
    todo, done = queues.Queue(), queues.Queue()
    todo.put_nowait_batch([(item.video, item.out) for item in items])
    # Each decoding thread takes one as its end.
    todo.put_nowait_batch([None] * sum(worker.decoders for worker in workers))
    actors = [
        ray.remote(_Device).options(num_cpus=worker.decoders, num_gpus=int(worker.device != "cpu")).remote()
        for worker in workers
    ]
    runs = [actor.run.remote(worker, todo, done) for actor, worker in zip(actors, workers)]
    remaining = len(items)
    try:
        while remaining:
            try:
                result = done.get(timeout=_POLL_SECONDS)
            except queues.Empty:
                _check_alive(ray, runs)
                continue
            if isinstance(result, HourLlavaError):
                raise result
            finished(result)
            remaining -= 1
        ray.get(runs)
    finally:
        for actor in actors:
            ray.kill(actor)
        todo.shutdown(force=True)
        done.shutdown(force=True)


class _Device:
    """A device of the cluster."""

    def run(self, worker: WorkerSettings, todo: Any, done: Any) -> None:
        try:
            extract(worker, todo.get, done.put)
        except HourLlavaError as error:
            done.put(error)


def _check_alive(ray: Any, runs: Sequence[Any]) -> None:
    ended, _ = ray.wait(list(runs), num_returns=len(runs), timeout=0)
    try:
        ray.get(ended)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise WorkerLostError(f"a worker of the Ray cluster ended ({reason}); run again to go on") from error


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError("--engine ray needs the package ray; run: pip install 'hourllava[ray]'") from error
