"""Runs the app: uvicorn with a time limit for heads of requests, and an end that tells the clients."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from hourllava.serving.context import Context

KEEP_ALIVE_SECONDS = 15
MAX_HEAD_BYTES = 64 * 1024
BACKLOG = 512
_CLOSING_SECONDS = 3  # for what does not end by itself when the time for draining is over


class Server(uvicorn.Server):
    """Serves an app from `create_app` until SIGTERM or Ctrl-C.

    Then it takes no more connections, waits `drain_seconds` for answers that are being written, tells the others that
    it ends, and closes the engine. That is its usual end, so `run` returns; a second Ctrl-C, which ends it at once,
    raises KeyboardInterrupt.

    Args:
        app: from `create_app`.
        host, port: where it listens; port 0 takes a free one.
    """

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        self._context: Context = app.state.context
        settings = self._context.settings
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=_protocol(settings.head_seconds),
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(settings.drain_seconds) + _CLOSING_SECONDS,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            )
        )

    @property
    def address(self) -> str:
        """Where it listens, once it does."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, which raises the signals again in the end: the process would then seem to have been killed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.force_exit:
            raise KeyboardInterrupt

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, and end."""
        self._context.closing.begin(self._context.settings.drain_seconds)
        await super().shutdown(sockets)


def _protocol(head_seconds: float) -> type[asyncio.Protocol]:
    """HTTP/1.1 with a limit for the head of a request: without it, a slow client holds a connection for ever."""

    class HeadInTime(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._timer is not None:
                self._timer.cancel()

        def _expect_head(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_later(head_seconds, self._check_head)

        def _check_head(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return HeadInTime
