"""http(s) addresses: made valid, shown without their secrets, and what the server says about their content.

User, password and query (signed links have their signature there) are for the server only. They are never shown, kept
or logged.
"""

from __future__ import annotations

import base64
import http.client
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from hourllava.errors import VideoError

TIMEOUT_SECONDS = 30
_PATH_LETTERS = "/%:@!$&'()*+,;=~-._"
_VALIDATORS = ("ETag", "Last-Modified")
# Answers of servers that allow neither HEAD nor ranges, or want another login than Basic. FFmpeg may still succeed.
_REFUSING_STATUSES = frozenset({400, 401, 403, 405, 406, 407, 411, 412, 416, 501})


@dataclass(frozen=True)
class Address:
    """A valid http(s) address.

    Attributes:
        shown: for messages: no user, no password, no query.
        full: for FFmpeg: percent-encoded, with everything.
        request_url: for requests of our own: without user and password.
        login: "user:password", or empty.
    """

    shown: str
    full: str = field(repr=False)
    request_url: str = field(repr=False)
    login: str = field(repr=False)


def hide_secrets(text: str) -> str:
    """An address of any scheme, valid or not, without its secrets; other text is returned unchanged.

    If the password cannot be located, because it has a raw slash in it for example, only the scheme is shown.
    """
    match = re.search(r"[A-Za-z][A-Za-z0-9+.-]*:/+", text)
    if match is None or match[0].lower().startswith("file:"):
        return text
    before, rest = text[: match.end()], text[match.end() :]
    shown, mark, _ = rest.partition(next(iter(re.findall(r"[?#]", rest)), "?"))
    authority, slash, path = shown.partition("/")
    behind_authority = rest[len(authority) :]
    if "@" in behind_authority and ":" in rest[: rest.rindex("@")]:
        return f"{before}..."
    return f"{before}{authority.rpartition('@')[2]}{slash}{path}{'?...' if mark else ''}"


def parse_address(text: str) -> Address:
    """Check an http(s) address and percent-encode spaces and letters beyond ASCII.

    Raises:
        VideoError: it has no host, or its port is no number.
    """
    shown = hide_secrets(text)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        host = f"[{host}]" if ":" in host else host.encode("idna").decode() if not host.isascii() else host
    except ValueError as error:  # UnicodeError is one; its text may quote the password
        raise VideoError(
            f"{shown} is no valid address: give http(s)://host/path or http(s)://host:port/path; in a user name or"
            " password write / as %2F and @ as %40"
        ) from (None if "@" in text else error)
    if not host or re.search(r"[\s\x00-\x1f%]", host):
        raise VideoError(f"{shown} names no host: give http(s)://host/path")
    login, is_login, _ = parts.netloc.rpartition("@")
    user, has_password, password = (unquote(part) for part in login.partition(":"))
    place = host if port is None else f"{host}:{port}"
    path = _encoded(parts.path)
    query = f"?{_encoded(parts.query, '?')}" if parts.query else ""
    scheme = parts.scheme.lower()
    encoded_login = quote(user, safe="") + has_password + quote(password, safe="") + "@" if is_login else ""
    return Address(
        shown=shown,
        full=f"{scheme}://{encoded_login}{place}{path}{query}",
        request_url=f"{scheme}://{place}{path or '/'}{query}",
        login=f"{user}:{password}" if is_login else "",
    )


def _encoded(text: str, further_letters: str = "") -> str:
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text), safe=_PATH_LETTERS + further_letters)


def content_validators(address: Address) -> str | None:
    """Length, date of change and tag of the content, from the server; None if it gives neither date nor tag.

    A length alone does not identify a content. If the server refuses HEAD, as for signed links, the first byte is
    requested instead.

    Raises:
        VideoError: nothing is at this address, or no server answers.
    """
    error: Exception | None = None
    for method, wanted in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
        request = urllib.request.Request(address.request_url, method=method, headers={"User-Agent": "hourllava"})
        for name, value in wanted.items():
            request.add_header(name, value)
        if address.login:
            login = base64.b64encode(address.login.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {login}")  # for this server only
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                found = [response.headers.get(name, "") for name in _VALIDATORS]
                size = response.headers.get("Content-Range", "").rpartition("/")[2]
                size = size or response.headers.get("Content-Length", "")
            return "\n".join([size, *found]) if any(found) else None
        except urllib.error.HTTPError as refusal:
            refusal.close()
            error = refusal
        except http.client.HTTPException as broken:  # such as a connection that a HEAD closes
            error = broken
        except (OSError, ValueError) as failure:  # no such host, no route, a certificate that is not valid
            error = failure
            break
    if isinstance(error, urllib.error.HTTPError) and error.code in _REFUSING_STATUSES:
        return None
    reason = getattr(error, "reason", None) or error or "no answer"
    status = f"status {error.code}, " if isinstance(error, urllib.error.HTTPError) else ""
    raise VideoError(f"{address.shown} cannot be read: {status}{reason}: check the address and the connection")
