"""Ray Serve without a cluster: its local testing mode, in this process."""

import asyncio
import functools
import importlib

import pytest

from hourllava.serving.ray_engine import RayEngine
from hourllava.serving.ray_start import ServeReplica
from hourllava.serving.replica import ReplicaServer

ENGINES = {}
"""By number: Ray pickles what it is given, also here, and an engine cannot be pickled."""


def _engine(number):
    return ENGINES[number]


def local_ray(engine):
    """The engine of one replica, which Ray Serve runs in a thread."""
    pytest.importorskip("ray")
    serve = importlib.import_module("ray.serve")
    number = len(ENGINES)
    ENGINES[number] = engine
    app = serve.deployment(ReplicaServer, name="replica").bind(functools.partial(_engine, number))
    handle = serve.run(app, name=f"here-{number}", route_prefix=None, _local_testing_mode=True)

    async def close():
        await asyncio.sleep(0)

    return RayEngine([ServeReplica(handle)], close)
