"""Files from the model hub: what a repository holds, and one file fetched, resumed and checked.

The package `huggingface_hub` says where the hub is and who the user is, and its client speaks HTTP; answers
are read here, because what a hub sends must be bounded by what it promised. Nothing is asked of the network
but what these functions are called for.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from urllib.parse import quote, urljoin, urlsplit

from rwkv_engine.errors import DownloadError, OptionError
from rwkv_engine.system.extras import missing
from rwkv_engine.system.json_text import parsed

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
#: a file's own name, fit for a folder of ours
PLAIN = re.compile(r"[A-Za-z0-9_][\w .+=@%-]{0,199}", re.ASCII)
_PIECE = 1 << 20  #: bytes hashed at a time
#: bytes of a listing, which takes about 200 a file, and seconds until it must be here
LISTING_LIMIT, LISTING_SECONDS = 8 << 20, 60
#: seconds to wait for a hub that says nothing; how often one that breaks off is asked again; addresses that
#: it may point to in turn
SILENCE, TRIES, REDIRECTS = 30.0, 5, 5
#: what the hub says is wrong, in the header X-Error-Code
_GATED, _ABSENT = ("GatedRepo",), ("RepoNotFound", "EntryNotFound", "RevisionNotFound")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit: `files` are names with folders -> bytes; `endpoint` is where it was found
    (None: the default).
    """

    name: str
    commit: str
    files: Mapping[str, int]
    endpoint: str | None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository; `digest` is its SHA-256 (64 hexadecimal digits) or, for small files, its git
    SHA-1 (40).
    """

    repository: Repository
    path: str
    bytes: int
    digest: str

    @property
    def name(self) -> str:
        """Without folders."""
        return self.path.rpartition("/")[2]


def look_up(name: str, endpoint: str | None = None) -> Repository:
    """What the repository "owner/repo" holds.

    One request. Raises OptionError, DownloadError, MissingExtra.
    """
    if not REPOSITORY.fullmatch(name):
        raise OptionError(f"{name[:100]!r} names no repository; want owner/repo or owner/repo:file")
    url = f"{_endpoint(endpoint)}/api/models/{name}?blobs=true"
    with _refusals(name):
        listing = _listing(name, url)
    commit, siblings = listing.get("sha"), listing.get("siblings") or []
    if not isinstance(commit, str) or not re.fullmatch("[0-9a-f]{7,64}", commit):
        raise DownloadError(f"{name}: the hub names no commit; it is no hub that this engine knows")
    if not isinstance(siblings, list) or not all(
        isinstance(one, dict) and isinstance(one.get("rfilename"), str) for one in siblings
    ):
        raise DownloadError(f"{name}: the hub lists no files; it is no hub that this engine knows")
    files = {one["rfilename"]: size if type(size := one.get("size")) is int else 0 for one in siblings}
    return Repository(name, commit, files, endpoint)


def describe(repository: Repository, path: str) -> RemoteFile:
    """Size and checksum of one file.

    One request. Raises DownloadError, also where the hub gives no checksum.
    """
    what = f"{repository.name}:{path}"
    with _refusals(what), _asked("HEAD", _url(repository, path), _headers(), away="stop") as answer:
        told, here = answer.headers, answer.status_code < 300
    digest = (told.get("X-Linked-ETag") or told.get("ETag") or "").removeprefix("W/").strip('"').lower()
    size = told.get("X-Linked-Size") or (here and told.get("Content-Length")) or ""
    if not re.fullmatch("[0-9]{1,18}", size) or not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", digest):
        raise DownloadError(
            f"{what}: the hub tells no size or checksum (ETag {digest[:80]!r}), so it cannot be checked"
        )
    file = RemoteFile(repository, path, int(size), digest)
    if not PLAIN.fullmatch(file.name):
        raise DownloadError(f"{repository.name}: {path[:100]!r} is no plain file name")
    return file


def fetch(file: RemoteFile, folder: Path) -> Path:
    """The file in `folder`, whole and checked; a copy that was begun there before is gone on with.

    Until it is checked it is called NAME.part. Progress goes to standard error where that is a terminal.
    Raises DownloadError: no answer (what has come stays, to be resumed), or not the promised content (the
    copy is deleted).
    """
    target, part = folder / file.name, folder / f"{file.name}.part"
    what = f"{file.repository.name}:{file.path}"
    if target.is_file() and target.stat().st_size == file.bytes:
        return target  # it was checked before it got this name
    if part.is_file() and part.stat().st_size > file.bytes:
        part.unlink()
    with _refusals(what):
        _get(file, part)
    got = digest_of(part, len(file.digest))
    if got != file.digest or part.stat().st_size != file.bytes:
        part.unlink()
        raise DownloadError(
            f"{what}: got {got[:16]}..., want checksum {file.digest[:16]}...; "
            "the copy was deleted, nothing is registered; pull again"
        )
    os.replace(part, target)
    return target


def _get(file: RemoteFile, part: Path) -> None:
    """Ask for what is not in `part` yet, again where the answer breaks off, as long as something comes."""
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import tqdm

    with open(part, "ab") as out:
        with tqdm(
            total=file.bytes, initial=out.tell(), unit="B", unit_scale=True, desc=file.name, disable=None
        ) as bar:
            tries = TRIES
            while out.tell() < file.bytes:
                before = out.tell()
                try:
                    for piece in _content(file, before):
                        if out.tell() + len(piece) > file.bytes:
                            out.truncate(0)
                            raise DownloadError(
                                f"{file.repository.name}:{file.path}: more came than the {file.bytes} bytes that the hub "
                                "promised; the copy was deleted, nothing is registered"
                            )
                        out.write(piece)
                        bar.update(len(piece))
                except HTTPError:
                    tries = TRIES if out.tell() > before else tries - 1
                    if not tries:
                        raise
                else:
                    break  # the answer ended: it is whole, or its checksum will not fit


def _content(file: RemoteFile, start: int) -> Iterator[bytes]:
    """The bytes of a file from `start` on, as they come."""
    headers = _headers() | ({"Range": f"bytes={start}-"} if start else {})
    with _asked("GET", _url(file.repository, file.path), headers, away="follow") as answer:
        skipped = start if start and answer.status_code == 200 else 0  # it sends all of it again
        place = re.match(r"bytes ([0-9]+)-", answer.headers.get("Content-Range", f"bytes {start}-"))
        if answer.status_code == 206 and (place is None or int(place[1]) != start):
            raise ValueError("the hub sends another part than it was asked for")
        for piece in answer.iter_raw():
            yield piece[skipped:]
            skipped = max(skipped - len(piece), 0)


def _listing(name: str, url: str) -> Mapping[str, Any]:
    """The hub's answer about a repository, a JSON object. Raises ValueError for anything else."""
    content, until = bytearray(), time.monotonic() + LISTING_SECONDS
    with _asked("GET", url, _headers(), away="refuse") as answer:
        for piece in answer.iter_raw():
            content += piece
            if len(content) > LISTING_LIMIT or time.monotonic() > until:
                raise ValueError(
                    f"its list of files is over {LISTING_LIMIT} bytes, or takes over {LISTING_SECONDS} s"
                )
    found = parsed(bytes(content))
    if not isinstance(found, dict):
        raise ValueError("its list of files is no JSON object")
    return found


@contextmanager
def _asked(
    method: str, url: str, headers: dict[str, str], away: Literal["follow", "stop", "refuse"]
) -> Iterator[Any]:
    """The hub's answer, its body not read yet.

    away  what to do about a redirect to another host: "follow" it, without the user's token; take it for the
          answer; or refuse it.
    Raises DownloadError where the hub refuses, ValueError for a redirect that is not followed, HTTPError of
    the client.
    """
    from huggingface_hub.utils import get_session

    client, home = get_session(), urlsplit(url)
    for _ in range(REDIRECTS + 1):
        with client.stream(method, url, headers=headers, follow_redirects=False, timeout=SILENCE) as answer:
            if answer.status_code not in (301, 302, 303, 307, 308):
                _refuse(answer)
                yield answer
                return
            there = urlsplit(urljoin(url, answer.headers.get("Location", "")))
            same = (there.scheme, there.netloc) == (home.scheme, home.netloc)
            if not same and away == "stop":
                yield answer
                return
        proper = there.scheme in (home.scheme, "https") and there.geturl().isprintable() and there.port != 0
        if not proper or (not same and away == "refuse"):
            raise ValueError(
                f"the hub points to {there.scheme[:20]}://{there.netloc[:100]}, which is not followed"
            )
        if not same:
            headers = {key: value for key, value in headers.items() if key.lower() != "authorization"}
        url, home = there.geturl(), there
    raise ValueError(f"the hub points from one address to the next, over {REDIRECTS} times")


def _refuse(answer: Any) -> None:
    """Raise DownloadError for an answer that is a refusal, without reading what else it says."""
    code, status = answer.headers.get("X-Error-Code", ""), answer.status_code
    if code in _GATED:
        raise DownloadError(
            "its owner wants you to agree to terms on the hub first, and HF_TOKEN to say who you are"
        )
    if code in _ABSENT or status in (401, 404):
        raise DownloadError("the hub has no such thing; if it is private, set HF_TOKEN")
    if status >= 300 or status < 200:
        raise DownloadError(f"the hub refused ({status}); try again later")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError("the hub sends compressed what was asked for as it is; try again later")


def digest_of(path: Path, digits: int) -> str:
    """A file's SHA-256 (64 digits), or its SHA-1 as git counts it (40)."""
    digest = (
        hashlib.sha256()
        if digits == 64
        else hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    )
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _package() -> ModuleType:
    """The package huggingface_hub."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise missing("pulling models", "hub", "huggingface_hub") from error
    return huggingface_hub


def _endpoint(endpoint: str | None) -> str:
    """The hub's address: what is given, else HF_ENDPOINT, else the public one."""
    _package()
    from huggingface_hub.constants import ENDPOINT

    return (endpoint or str(ENDPOINT)).rstrip("/")


def _url(repository: Repository, path: str) -> str:
    return (
        f"{_endpoint(repository.endpoint)}/{repository.name}/resolve/{quote(repository.commit)}/{quote(path)}"
    )


def _headers() -> dict[str, str]:
    """What every request says: who the user is, where there is a token; no word of the machine; and that
    nothing be compressed, so that bytes can be counted.
    """
    _package()
    from huggingface_hub import constants, get_token  # its `build_hf_headers` would ask the network for more

    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    own = {"Authorization": f"Bearer {token}"} if token else {}
    return {**own, "User-Agent": "rwkv-engine", "Accept-Encoding": "identity"}


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Whatever the hub, the network or the disk refuses, as a DownloadError of one sentence."""
    _package()
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except DownloadError as error:
        text = str(error)
        raise error if text.startswith(what) else DownloadError(f"{what}: {text}") from None
    except (HTTPError, OSError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise DownloadError(
            f"{what}: {type(error).__name__}: {text}; what has come is kept, pull again to go on"
        ) from None
