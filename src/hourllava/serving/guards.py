"""The door of the server: who may come in, how much they may bring, and how long that may take.

`Guard` stands before all routes, the page and `/mcp`. It checks `Host` and `Origin` (a page of a stranger must not use
a server on somebody's machine), keys, and sizes: first the announced length, then every byte that comes. It adds the
headers of every answer, and turns bugs into an answer of the usual shape.
"""

import asyncio
import secrets
import time
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hourllava.serving.access import host_is_known, origin_is_known, owner_of_key
from hourllava.serving.context import Context
from hourllava.serving.errors import ApiError, api_error, shutting_down, too_large

UPLOADS = frozenset({("POST", "/v1/files"), ("PUT", "/v1/hourllava/videos")})
FORM_BYTES = 2**20
"""What a form may have beside its file."""

MIN_BYTES_A_SECOND = 1024
"""An upload that is slower than this for long is ended: it holds a place."""

_OPEN = frozenset({"/", "/health", "/ready", "/favicon.ico"})
_ALIVE_WHILE_DRAINING = frozenset({"/health", "/ready", "/metrics"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cache-Control": "no-store",
}


class _ReadsTooSlowly(Exception):
    """The client did not read what was sent."""


class Guard:
    """ASGI middleware; see the module.

    Args:
        app: what is guarded.
        context: of the server.
    """

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            else:  # a web socket; nothing here speaks it
                await send({"type": "websocket.close", "code": 1008})
            return
        visit = _Visit(scope, receive, send, self._context)
        try:
            refusal = visit.refusal()
            if refusal is not None:
                await refusal(scope, receive, visit.send)
            else:
                await self._app(scope, visit.receive, visit.send)
        except ClientDisconnect:
            visit.note(499)
        except _ReadsTooSlowly:  # the connection is closed, because the answer is not whole
            self._context.metrics.rejected("reads_too_slowly")
        except asyncio.CancelledError:
            if self._context.closing.is_draining and not visit.is_answered:
                await shutting_down().response()(scope, receive, visit.send)
            raise
        except Exception as error:
            found = api_error(error, is_draining=self._context.closing.is_draining)
            self._context.metrics.rejected(found.code)
            if visit.is_answered:
                raise
            await found.response()(scope, receive, visit.send)


class _Visit:
    """One request on its way through the door."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, context: Context) -> None:
        self._scope, self._receive, self._send, self._context = scope, receive, send, context
        self._headers = Headers(scope=scope)
        self._method, self._path = scope["method"], scope["path"]
        settings = context.settings
        is_upload = (self._method, self._path.rstrip("/")) in UPLOADS
        self._max_bytes = settings.max_upload_bytes + FORM_BYTES if is_upload else settings.max_json_bytes
        self._num_bytes = 0
        self._begin_seconds = time.monotonic()
        self._has_body = True
        self._origin = self._headers.get("origin", "")
        self.is_answered = False
        self._request_id = f"req_{secrets.token_hex(8)}"

    def refusal(self) -> Response | None:
        """Why this request goes no further; None if it may. Notes the owner."""
        try:
            self._check_address()
            if self._method == "OPTIONS" and self._origin and "access-control-request-method" in self._headers:
                return self._preflight()
            owner = self._check_key()
            self._scope.setdefault("state", {})["owner"] = owner
            self._check_length()
            if self._context.closing.is_draining and self._path not in _ALIVE_WHILE_DRAINING:
                raise shutting_down()
        except ApiError as error:
            self._context.metrics.rejected(error.code)
            return error.response()
        return None

    def _check_address(self) -> None:
        settings = self._context.settings
        host = self._headers.get("host", "")
        if not host_is_known(host, settings.allowed_hosts):
            raise ApiError(421, "host_not_allowed", "this name of the server is not allowed (--allow-host)")
        is_foreign = bool(self._origin) and not origin_is_known(self._origin, host, settings.cors_origins)
        if is_foreign and self._method not in _SAFE_METHODS:
            raise ApiError(403, "origin_not_allowed", "pages of this origin may not use the server (--cors-origin)")

    def _check_key(self) -> str:
        settings = self._context.settings
        if not settings.keys or self._path in _OPEN or self._path.startswith("/page/"):
            return ""
        owner = owner_of_key(settings.keys, self._headers.get("authorization", ""))
        if owner is None and self._method in ("GET", "HEAD") and self._path.endswith("/content"):
            tokens = parse_qs(self._scope["query_string"].decode("latin-1")).get("token", [""])
            owner = self._context.signed.owner_of(self._path, tokens[0])
        if owner is None:
            headers = {"WWW-Authenticate": "Bearer"}
            message = "the key is missing or wrong; send Authorization: Bearer KEY"
            raise ApiError(401, "invalid_api_key", message, headers=headers)
        return owner

    def _check_length(self) -> None:
        announced = self._headers.get("content-length", "0")
        if not announced.isdecimal() or len(announced) > 18:
            raise ApiError(400, "invalid_request", "content-length is no number of bytes")
        if int(announced) > self._max_bytes:
            raise too_large("the body", self._max_bytes)

    def _preflight(self) -> Response:
        """Tells a browser what pages of a known origin may do; others get no permission."""
        headers = {"Vary": "Origin"}
        if self._origin in self._context.settings.cors_origins:
            headers |= {
                "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE",
                "Access-Control-Allow-Headers": self._headers.get("access-control-request-headers", "*"),
                "Access-Control-Max-Age": "600",
            }
        return Response(status_code=204, headers=headers)

    async def receive(self) -> Message:
        """The next part of the body, in time and within the limit."""
        settings = self._context.settings
        if not self._has_body:  # now a client can only leave, whenever it likes
            return await self._receive()
        try:
            async with asyncio.timeout(settings.idle_seconds):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, "too_slow", f"no byte came for {settings.idle_seconds:g} s") from None
        if message["type"] != "http.request":
            return message
        self._has_body = bool(message.get("more_body"))
        self._num_bytes += len(message.get("body", b""))
        if self._num_bytes > self._max_bytes:
            raise too_large("the body", self._max_bytes)
        seconds = time.monotonic() - self._begin_seconds - settings.idle_seconds
        if seconds > 0 and self._has_body and self._num_bytes < seconds * MIN_BYTES_A_SECOND:
            raise ApiError(408, "too_slow", f"the body came with less than {MIN_BYTES_A_SECOND} bytes a second")
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, unless the client does not read."""
        if message["type"] == "http.response.start":
            self.is_answered = True
            self.note(message["status"])
            self._add_headers(MutableHeaders(scope=message))
        try:
            async with asyncio.timeout(self._context.settings.send_seconds):
                await self._send(message)
        except TimeoutError:
            raise _ReadsTooSlowly from None

    def note(self, status: int) -> None:
        """Count this request."""
        self._context.metrics.requested(self._method, status)

    def _add_headers(self, headers: MutableHeaders) -> None:
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        headers["X-Request-Id"] = self._request_id
        if self._origin and self._origin in self._context.settings.cors_origins:
            headers["Access-Control-Allow-Origin"] = self._origin
            headers["Access-Control-Expose-Headers"] = "X-Request-Id, Retry-After, Content-Range, Accept-Ranges"
            headers.add_vary_header("Origin")
