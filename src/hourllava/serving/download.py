"""Fetches a video from an address that a client gave, without reaching anything that is not public.

An address of a stranger may point into the network of the server, directly, by a name, or by a redirect. So names are
resolved once, every address of the answer must be public, and the connection goes to one that was checked: a second
answer of the name server changes nothing. Redirects are followed by hand, each checked like the first. Time and bytes
are limited. Proxies of the environment are not used.
"""

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urljoin, urlsplit

import h11

from hourllava.serving.errors import ApiError, invalid, too_large

MAX_REDIRECTS = 5
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 30.0
CHUNK_BYTES = 256 * 1024
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNSAFE = re.compile(r"[\x00-\x20\x7f]")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the IP addresses of a host, as texts."""


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host, from the name server of this machine."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; one that carries an IPv4 address is as public as that."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(ip.packed[-4:])))
        if ip in _LOCAL_NAT64 or ip.sixtofour is not None or ip.teredo is not None:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


@dataclass(frozen=True)
class Fetcher:
    """Fetches videos from some hosts.

    Attributes:
        hosts: names that are allowed; `*` for all, `*.example.org` for those below.
        max_bytes: of a video.
        seconds: for all of it, redirects included.
        resolve: finds addresses; tests give another.
        is_allowed_ip: says which IP addresses may be reached; tests give another.
        context: for https.
    """

    hosts: Sequence[str]
    max_bytes: int
    seconds: float
    resolve: Resolve = resolve
    is_allowed_ip: Callable[[str], bool] = is_public
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator["Fetched"]:
        """Ask for a video, and follow redirects.

        Raises:
            ApiError: the address is not allowed, or cannot be read. The address is not repeated.
        """
        async with contextlib.AsyncExitStack() as on_end:
            try:
                async with asyncio.timeout(self.seconds):
                    for _ in range(MAX_REDIRECTS + 1):
                        where = _Place.of(url)
                        self._check_host(where)
                        answer = await self._ask(where)
                        on_end.callback(answer.close)
                        if answer.status not in _REDIRECTS:
                            answer.check()
                            yield answer
                            return
                        answer.close()
                        url = urljoin(url, answer.header("location"))
            except TimeoutError:
                raise _refused("it took too long") from None
            except (OSError, h11.RemoteProtocolError) as error:
                raise _refused("the connection failed") from error
        raise _refused(f"it leads on more than {MAX_REDIRECTS} times")

    def _check_host(self, where: "_Place") -> None:
        for allowed in self.hosts:
            below = allowed.removeprefix("*")
            if allowed == "*" or where.host == allowed.lower():
                return
            if allowed.startswith("*.") and where.host.endswith(below.lower()):
                return
        raise _refused("this host is not allowed (--allow-url)")

    async def _ask(self, where: "_Place") -> "Fetched":
        try:
            found = await asyncio.wait_for(self.resolve(where.host, where.port), CONNECT_SECONDS)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise _refused("the host is not known") from error
        if not found or not all(self.is_allowed_ip(address) for address in found):
            raise _refused("the host is not in the public internet")
        # To the checked address; the name is for the certificate and the server only.
        is_tls = where.scheme == "https"
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(
                found[0],
                where.port,
                ssl=self.context if is_tls else None,
                server_hostname=where.host if is_tls else None,
            ),
            CONNECT_SECONDS,
        )
        fetched = Fetched(where.filename, reader, writer, self.max_bytes)
        try:
            await fetched.ask(where.target, where.authority)
        except BaseException:
            fetched.close()
            raise
        return fetched


@dataclass(frozen=True)
class _Place:
    """A checked address."""

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, url: str) -> "_Place":
        try:
            parts = urlsplit(url)
            port = parts.port
            host = (parts.hostname or "").encode("idna").decode().lower().rstrip(".") if parts.hostname else ""
        except ValueError as error:  # also UnicodeError
            raise _refused("it is no valid address") from error
        if parts.scheme not in _PORTS or not host or parts.username is not None or parts.password is not None:
            raise _refused("it must be http(s)://host/path, without user and password")
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        if parts.query:
            target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]")
        if _UNSAFE.search(host) or _UNSAFE.search(target):
            raise _refused("it is no valid address")
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], target)

    @property
    def authority(self) -> str:
        """Host and port, as in the address."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port == _PORTS[self.scheme] else f"{shown}:{self.port}"

    @property
    def filename(self) -> str:
        """The last part of the path."""
        return unquote(self.target.partition("?")[0]).rpartition("/")[2] or "video"


class Fetched:
    """An answer whose body is still to be read.

    Args:
        filename: from the address.
        reader, writer: of the connection.
        max_bytes: of the body.

    Attributes:
        filename: as given.
        status: of HTTP.
    """

    def __init__(
        self, filename: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_bytes: int
    ) -> None:
        self.filename = filename
        self.status = 0
        self._reader, self._writer, self._max_bytes = reader, writer, max_bytes
        self._connection = h11.Connection(h11.CLIENT)
        self._headers: list[tuple[bytes, bytes]] = []

    async def ask(self, target: str, authority: str) -> None:
        """Send the request, and read the head of the answer."""
        headers = {
            "Host": authority,
            "User-Agent": "hourllava",
            "Accept": "video/*, */*;q=0.5",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        request = h11.Request(method="GET", target=target, headers=list(headers.items()))
        self._writer.write(self._connection.send(request) + self._connection.send(h11.EndOfMessage()))
        while not isinstance(event := await self._next(), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise _refused("no HTTP server answers")
        self.status, self._headers = event.status_code, list(event.headers)

    async def _next(self) -> object:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(IDLE_SECONDS):
                data = await self._reader.read(CHUNK_BYTES)
            self._connection.receive_data(data)
        return event

    def header(self, name: str) -> str:
        """A header of the answer, or nothing."""
        return next((value.decode("latin-1") for key, value in self._headers if key == name.encode()), "")

    def check(self) -> None:
        """Check that this is a file that may be read.

        Raises:
            ApiError: it is not.
        """
        if self.status != 200:
            raise _refused(f"the server answers with status {self.status}")
        length = self.header("content-length")
        if length and int(length) > self._max_bytes:
            raise too_large("a fetched video", self._max_bytes)

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the file.

        Raises:
            ApiError: they are too many.
            h11.RemoteProtocolError: they end too early; `Fetcher.open` translates it.
        """
        num_bytes = 0
        while isinstance(event := await self._next(), h11.Data):
            num_bytes += len(event.data)
            if num_bytes > self._max_bytes:
                raise too_large("a fetched video", self._max_bytes)
            yield bytes(event.data)

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


def _refused(reason: str) -> ApiError:
    return invalid(f"the address of the video cannot be read: {reason}", code="url_refused")
