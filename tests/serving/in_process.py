"""Replicas in this process, in place of those of a cluster: they can be killed and started again in no time."""

import asyncio
import pickle

from hourllava.serving.homes import ReplicaLost
from hourllava.serving.ray_engine import RayEngine
from hourllava.serving.replica import ReplicaServer


class InProcess:
    """A replica whose calls are pickled on their way, as between processes.

    Attributes:
        calls: names of the methods that were called.
    """

    def __init__(self, make_engine):
        self._make_engine = make_engine
        self.calls = []
        self._engines = []
        self.start()

    def start(self):
        """Start its process, again."""
        self._dead, self.hangs = asyncio.Event(), False
        self._server = ReplicaServer(self._made)

    def _made(self):
        self._engines.append(self._make_engine())
        return self._engines[-1]

    def kill(self):
        """End it, as `kill -9` does: every open call is lost."""
        self._dead.set()

    async def end(self):
        """Free what killed engines hold."""
        for engine in self._engines:
            await engine.close()

    async def stream(self, method, *arguments, **options):
        self.calls.append(method)
        dead = following = asyncio.ensure_future(self._dead.wait())
        items = self._server.call(method, *_sent(arguments), **_sent(options))
        try:
            while True:
                if self.hangs:
                    await self._dead.wait()
                following = asyncio.ensure_future(anext(items))
                await asyncio.wait((dead, following), return_when=asyncio.FIRST_COMPLETED)
                if dead.done():
                    raise ReplicaLost("it was killed")
                try:
                    item = following.result()
                except StopAsyncIteration:
                    return
                yield _sent(item)
        finally:
            for each in (dead, following):
                each.cancel()
            await asyncio.wait((dead, following))
            await items.aclose()


def _sent(value):
    return pickle.loads(pickle.dumps(value))


def ray_engine(replicas, **options):
    """The engine of replicas in this process."""

    async def close():
        for replica in replicas:
            await replica.end()

    return RayEngine(replicas, close, **{"take_seconds": 5.0, "probe_seconds": 0.01, **options})
