"""Replicas of a model on a Ray cluster: started, called, and ended with their server.

Each replica is an application of Ray Serve of its own with one process. Serve starts the process again when it ends,
and finds a GPU or cores for it; which replica gets a call is decided by `homes`.
"""

import asyncio
import functools
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from hourllava.cluster import join_cluster, ray_module
from hourllava.errors import ConfigError
from hourllava.inference.engine import HourLlava
from hourllava.serving.homes import ReplicaLost
from hourllava.serving.local import EngineSettings, LocalEngine
from hourllava.serving.ray_engine import RayEngine
from hourllava.serving.replica import Raised, ReplicaServer

START_SECONDS = 900.0
"""A replica that has not answered by then will not: there is no machine for it, or its model is too large."""

_MAX_CALLS = 10_000  # of a replica; the engine there has limits of its own
_HEALTH_SECONDS = 5.0


def start_replicas(
    model_name: str,
    memories_folder: Path,
    settings: EngineSettings,
    num_replicas: int,
    *,
    device: str | None = None,
    dtype: str | None = None,
) -> RayEngine:
    """An engine of replicas that answer; joins the cluster, or starts one on this machine.

    Args:
        model_name, device, dtype: see `HourLlava.from_pretrained`; every machine must find the model.
        memories_folder: that all machines see under this path.
        settings: limits of each replica.
        num_replicas: processes, each with a model.

    Raises:
        ConfigError: ray is not installed, the cluster has too few GPUs, or a replica does not start.
        HourLlavaError: the model cannot be loaded.
    """
    ray = join_cluster()
    resources = ray.cluster_resources()
    num_gpus = int(resources.get("GPU", 0))
    if 0 < num_gpus < num_replicas:
        raise ConfigError(f"{num_replicas} replicas need a GPU each; this cluster has {num_gpus}")
    num_cpus = max(1, int(resources["CPU"]) // num_replicas)
    make = functools.partial(_make_engine, model_name, memories_folder, settings, device, dtype)
    try:
        replicas = [_deploy(make, number, num_cpus, int(num_gpus > 0)) for number in range(num_replicas)]
        asyncio.run(_check_start(replicas))
    except BaseException:  # the cluster may go on after this process
        _close(num_replicas)
        raise
    return RayEngine(replicas, functools.partial(asyncio.to_thread, _close, num_replicas))


def _make_engine(
    model_name: str, memories_folder: Path, settings: EngineSettings, device: str | None, dtype: str | None
) -> LocalEngine:
    """In the process of a replica."""
    return LocalEngine(HourLlava.from_pretrained(model_name, device=device, dtype=dtype), memories_folder, settings)


class ServeReplica:
    """The way to a replica through Ray Serve; see `Replica`.

    Args:
        handle: of its application.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle.options(stream=True, method_name="call")
        exceptions, serve_exceptions = ray_module("ray.exceptions"), ray_module("ray.serve.exceptions")
        self._errors = (exceptions.RayError, serve_exceptions.RayServeException)

    async def stream(self, method: str, *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
        """See `Replica.stream`."""
        response = self._handle.remote(method, *arguments, **options)
        try:
            async for item in response:
                yield item
        except self._errors as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # Ray has an error of its own for that
                raise asyncio.CancelledError from error
            raise ReplicaLost(type(error).__name__) from error
        finally:
            response.cancel()


def _deploy(make: functools.partial[LocalEngine], number: int, num_cpus: int, num_gpus: int) -> ServeReplica:
    serve = ray_module("ray.serve")
    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(
        ReplicaServer,
        name="replica",
        num_replicas=1,
        max_ongoing_requests=_MAX_CALLS,
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
        health_check_period_s=_HEALTH_SECONDS,
        health_check_timeout_s=6 * _HEALTH_SECONDS,
    )
    return ServeReplica(serve.run(deployment.bind(make), name=_name(number), route_prefix=None))


async def _check_start(replicas: Sequence[ServeReplica]) -> None:
    async def check(replica: ServeReplica) -> None:
        async for item in replica.stream("status"):
            if isinstance(item, Raised):
                raise item.error

    try:
        async with asyncio.timeout(START_SECONDS):
            await asyncio.gather(*map(check, replicas))
    except (TimeoutError, ReplicaLost) as error:
        raise ConfigError("the replicas did not start; the logs of the Ray cluster say why") from error


def _close(num_replicas: int) -> None:
    serve = ray_module("ray.serve")
    for number in range(num_replicas):
        serve.delete(_name(number))


def _name(number: int) -> str:
    return f"hourllava-{number}"
