"""A server on loopback, in a thread of the tests."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2

from hourllava.serving.app import create_app
from hourllava.serving.server import Server
from hourllava.serving.settings import ServeSettings
from hourllava.serving.store import Store
from serving.scripted_engine import Script, ScriptedEngine


class Live:
    """A running server.

    Attributes:
        url: its address.
        engine: scripted.
        context: of the app.
        http: a client.
    """

    def __init__(self, folder: Path, engine: Any, settings: ServeSettings) -> None:
        self.engine = engine
        self.folder = folder
        self.store = Store(folder, min_free_bytes=settings.min_free_bytes)
        self.app = create_app(engine, self.store, settings)
        self.context = self.app.state.context
        self._server = Server(self.app, "127.0.0.1", 0)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            self._thread.join(0.005)
        self.url = self._server.address
        self.http = httpx2.Client(base_url=self.url, timeout=20)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self._server._serve()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function in the server's loop."""

        async def run() -> Any:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def stop(self) -> None:
        """As SIGTERM; returns at once."""
        self._server.should_exit = True

    def close(self) -> None:
        """End it."""
        self.http.close()
        self.stop()
        self._server._context.closing  # noqa: B018
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.context.closing.end)
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def live(folder: Path, engine: Any = None, script: Script | None = None, **settings: Any) -> Iterator[Live]:
    """A server in a folder, with these settings."""
    limits = {"drain_seconds": 0.3, "min_free_bytes": 0, **settings}
    server = Live(folder, engine or ScriptedEngine(script), ServeSettings(**limits))
    try:
        yield server
    finally:
        server.close()
