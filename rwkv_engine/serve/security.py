"""Who may ask: API keys, and what browsers may be made to do."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from rwkv_engine.errors import OptionError
from rwkv_engine.serve.problems import Problem


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def need_key(host: str, keys: Sequence[str], no_key: bool) -> None:
    """Raise OptionError for a server that others can reach and nobody has to have a key for."""
    if keys and no_key:
        raise OptionError("--no-key: a key is given too; give one of them")
    if any(not key.isascii() or not key.isprintable() or " " in key or len(key) < 8 for key in keys):
        raise OptionError("the API key: want 8 or more letters of ASCII without spaces")
    if not keys and not no_key and not is_loopback(host):
        raise OptionError(
            f"--host {host}: others can reach this server; set RWKV_API_KEY or --api-key-file, or say --no-key"
        )


class Door:
    """Lets requests in.

    keys     API keys; none: everybody may ask.    origins  whose web pages may ask, besides our own.
    local    whether the server is meant for this machine alone: then only names of this machine are answered
             to, so that no web page can reach it by a name of its own.
    """

    __slots__ = ("_digests", "_local", "_origins")

    def __init__(self, keys: Sequence[str], origins: Sequence[str], local: bool) -> None:
        self._digests = [_digest(key) for key in keys]
        self._origins, self._local = frozenset(origins), local

    @property
    def shared(self) -> bool:
        """Whether several people use the server."""
        return len(self._digests) > 1

    def owner(self, headers: Mapping[str, str]) -> str:
        """Whose request it is: a name made of the key, "" where there are none. Raises Problem."""
        kind, _, key = headers.get("authorization", "").partition(" ")
        if not self._digests:
            return ""
        given = _digest(key.strip() if kind.lower() == "bearer" else "")
        right = [
            hmac.compare_digest(given, digest) for digest in self._digests
        ]  # all of them, whichever fits
        if not any(right):
            sentence = "Incorrect API key provided." if key else "You didn't provide an API key."
            raise Problem(401, sentence, code="invalid_api_key")
        return given.hex()[:32]

    def guard(self, headers: Mapping[str, str]) -> None:
        """Raise Problem for what a web page of somebody else's sends, and for a host that is not this
        machine.
        """
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname or "" if host.isascii() else ""
        if self._local and not is_loopback(name):
            raise Problem(403, "This server answers only to names of this machine.", code="wrong_host")
        origin = headers.get("origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return
        if urlsplit(origin).netloc != host:
            raise Problem(403, "This web page may not use the server; see --cors.", code="wrong_origin")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
