"""Who a client is, and whether its address and page are known: pure functions for `guards`, and signed addresses."""

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from pydantic import SecretStr

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def owner_of_key(keys: Mapping[str, SecretStr], authorization: str) -> str | None:
    """The name of the key in a header `Authorization: Bearer KEY`; None if there is no such key.

    Every key is compared, in a time that does not depend on where they differ.
    """
    scheme, _, given = authorization.partition(" ")
    digest = hashlib.sha256(given.strip().encode(errors="replace")).digest()
    found = None
    for name, key in keys.items():
        if hmac.compare_digest(hashlib.sha256(key.get_secret_value().encode()).digest(), digest):
            found = name
    return found if scheme.lower() == "bearer" else None


def host_is_known(host: str, allowed: Sequence[str]) -> bool:
    """Whether a `Host` header is allowed: localhost, an IP address, or a name of the list; any port.

    A page of a stranger can let its own name stand for this machine's address (DNS rebinding). It then comes with that
    name, never with an address.
    """
    name = _without_port(host).lower()
    if name == "localhost" or name in (each.lower() for each in allowed):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def origin_is_known(origin: str, host: str, allowed: Sequence[str]) -> bool:
    """Whether a page of this origin may change anything here: it came from here, or it is in the list."""
    if origin in allowed:
        return True
    scheme, _, authority = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme.lower(), "")
    return bool(port) and authority.lower().removesuffix(port) == host.lower().removesuffix(port)


def _without_port(host: str) -> str:
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    if parts.netloc != host or "@" in host:
        return ""
    return parts.hostname or ""


class SignedAddresses:
    """Signs paths, so that a player that cannot send a key may read one video for some hours.

    Args:
        seconds: how long a signature is valid.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._secret = secrets.token_bytes(32)

    def sign(self, path: str, owner: str) -> str:
        """A token for a path; it ends with the server."""
        expires = f"{int(time.time() + self._seconds):x}"
        return f"{expires}.{owner}.{self._mac(path, expires, owner)}"

    def owner_of(self, path: str, token: str) -> str | None:
        """The owner who signed this path; None if the token is not valid, or not any more."""
        expires, _, rest = token.partition(".")
        owner, _, mac = rest.rpartition(".")
        if not hmac.compare_digest(self._mac(path, expires, owner).encode(), mac.encode(errors="replace")):
            return None
        return owner if int(expires, 16) > time.time() else None

    def _mac(self, path: str, expires: str, owner: str) -> str:
        text = "\n".join((path, expires, owner))
        return hmac.new(self._secret, text.encode(errors="replace"), hashlib.sha256).hexdigest()
