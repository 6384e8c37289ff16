"""Ray Serve without a cluster: its local testing mode, in this process."""

import asyncio
import importlib

import pytest

from hourllava.serving.ray_engine import RayEngine
from hourllava.serving.ray_start import ServeReplica
from hourllava.serving.replica import ReplicaServer


def local_ray(engine):
    """The engine of one replica, which Ray Serve runs in a thread."""
    pytest.importorskip("ray")
    serve = importlib.import_module("ray.serve")
    app = serve.deployment(ReplicaServer, name="replica").bind(lambda: engine)
    handle = serve.run(app, name="here", route_prefix=None, _local_testing_mode=True)

    async def close():
        await asyncio.sleep(0)

    return RayEngine([ServeReplica(handle)], close)
