"""Files from the model hub: what a repository holds, and one file fetched, resumed and checked (package `huggingface_hub`).

Nothing is asked of the network but what these functions are called for; the package's telemetry is switched off.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rwkv_engine.errors import DownloadError, MissingExtra, OptionError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
#: a file's own name, fit for a folder of ours
PLAIN = re.compile(r"[A-Za-z0-9_][\w .+=@%-]{0,199}", re.ASCII)
_PIECE = 1 << 20  #: bytes hashed at a time
#: for the package, before its first import: no telemetry, and plain HTTP, which can be resumed
_SETTINGS = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit: `files` are names with folders -> bytes; `endpoint` is where it was found (None: the default)."""

    name: str
    commit: str
    files: Mapping[str, int]
    endpoint: str | None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository; `digest` is its SHA-256 (64 hexadecimal digits) or, for small files, its git SHA-1 (40)."""

    repository: Repository
    path: str
    bytes: int
    digest: str

    @property
    def name(self) -> str:
        """Without folders."""
        return self.path.rpartition("/")[2]


def look_up(name: str, endpoint: str | None = None) -> Repository:
    """What the repository "owner/repo" holds. One request. Raises OptionError, DownloadError, MissingExtra."""
    if not REPOSITORY.fullmatch(name):
        raise OptionError(f"{name[:100]!r} names no repository; want owner/repo or owner/repo:file")
    hub = _package()
    with _refusals(name):
        found = hub.HfApi(endpoint=endpoint, library_name="rwkv-engine").model_info(name, files_metadata=True)
    if not found.sha:
        raise DownloadError(f"{name}: the hub names no commit; it is no hub that this engine knows")
    files = {sibling.rfilename: sibling.size or 0 for sibling in found.siblings or ()}
    return Repository(name, found.sha, files, endpoint)


def describe(repository: Repository, path: str) -> RemoteFile:
    """Size and checksum of one file. One request. Raises DownloadError, also where the hub gives no checksum."""
    hub = _package()
    with _refusals(f"{repository.name}:{path}"):
        told = hub.get_hf_file_metadata(
            _url(repository, path), headers=_headers(), endpoint=repository.endpoint
        )
    digest = (told.etag or "").lower()
    if told.size is None or not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", digest):
        raise DownloadError(
            f"{repository.name}:{path}: the hub tells no size or checksum (ETag {told.etag!r}), so it cannot be checked"
        )
    file = RemoteFile(repository, path, told.size, digest)
    if not PLAIN.fullmatch(file.name):
        raise DownloadError(f"{repository.name}: {path[:100]!r} is no plain file name")
    return file


def fetch(file: RemoteFile, folder: Path) -> Path:
    """The file in `folder`, whole and checked; a copy that was begun there before is gone on with.

    Until it is checked it is called NAME.part. Progress goes to standard error where that is a terminal.
    Raises DownloadError: no answer (what has come stays, to be resumed), or not the promised content (the copy is deleted).
    """
    target, part = folder / file.name, folder / f"{file.name}.part"
    if target.is_file() and target.stat().st_size == file.bytes:
        return target  # it was checked before it got this name
    here = part.stat().st_size if part.is_file() else 0
    if here > file.bytes:
        part.unlink()
        here = 0
    if here < file.bytes or not part.exists():
        _package()
        from huggingface_hub.file_download import http_get

        with _refusals(f"{file.repository.name}:{file.path}"), open(part, "ab") as out:
            url = _url(file.repository, file.path)
            http_get(
                url,
                out,
                resume_size=here,
                headers=_headers(),
                expected_size=file.bytes,
                displayed_filename=file.name,
            )
    got = digest_of(part, len(file.digest))
    if got != file.digest or part.stat().st_size != file.bytes:
        part.unlink()
        raise DownloadError(
            f"{file.repository.name}:{file.path}: got {got[:16]}..., want checksum {file.digest[:16]}...; "
            "the copy was deleted, nothing is registered; pull again"
        )
    os.replace(part, target)
    return target


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
    """The package huggingface_hub, told to keep quiet."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtra(
            "pulling models needs the package huggingface_hub: pip install 'rwkv-engine[hub]'."
        ) from error
    return huggingface_hub


def _url(repository: Repository, path: str) -> str:
    url: str = _package().hf_hub_url(
        repository.name, path, revision=repository.commit, endpoint=repository.endpoint
    )
    return url


def _headers() -> dict[str, str]:
    """As the package sends them, with the user's token where there is one; without compression, so that bytes can be counted."""
    _package()
    from huggingface_hub.utils import build_hf_headers

    return {**build_hf_headers(library_name="rwkv-engine"), "Accept-Encoding": "identity"}


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Whatever the hub, the network or the disk refuses, as a DownloadError of one sentence."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise DownloadError(
            f"{what}: its owner wants you to agree to terms on the hub first, and HF_TOKEN to say who you are"
        ) from None
    except (errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.RevisionNotFoundError):
        raise DownloadError(f"{what}: the hub has no such thing; if it is private, set HF_TOKEN") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no status")
        raise DownloadError(f"{what}: the hub refused ({status}); try again later") from None
    except (errors.HTTPError, OSError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise DownloadError(
            f"{what}: {type(error).__name__}: {text}; what has come is kept, pull again to go on"
        ) from None
