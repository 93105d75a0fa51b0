"""`pull`: a model from the hub to a short name: fetched, checked, quantized, registered."""

import difflib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint, open_checkpoint
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.checkpoints.names import matrices
from rwkv_engine.errors import CheckpointError, DownloadError, OptionError, UnknownLayout
from rwkv_engine.formats import DEFAULT, own_format, quantized_names
from rwkv_engine.library import registry
from rwkv_engine.library.footprint import KEEP, Footprint, rough
from rwkv_engine.library.hub import RemoteFile, Repository, describe, fetch, look_up
from rwkv_engine.library.known_models import KNOWN, known
from rwkv_engine.library.registry import Record
from rwkv_engine.numbers.sizes import size
from rwkv_engine.system.process import physical_memory
from rwkv_engine.tools.quantize import packed_bytes, quantize

ENDINGS = (".safetensors", ".st", ".pth", ".gguf")  #: of weights
INDEX = "model.safetensors.index.json"
#: taken along from where the weights lie
COMPANIONS = (
    *("tokenizer.json", "config.json", "generation_config.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
)

#: told (bytes quantized, bytes in all)
Progress = Callable[[int, int], None]


def pull(
    source: str,
    *,
    name: str | None = None,
    format: str = DEFAULT,
    force: bool = False,
    tokenizer: str | Path | None = None,
    endpoint: str | None = None,
    say: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Record:
    """Fetch a model, check it, quantize it, and register it under a short name; `load(name)` then finds it.

    source     a name of `known_models.KNOWN`, "owner/repo:file", or "owner/repo" if it holds one model.
    name       to register; None: the known name, or the repository's.
    format     a quantized weight format (int8, int5, int4), or "keep": as it was published.
    force      fetch it though memory or disk seem too small.
    tokenizer  as for `load`, to be packed with it.       endpoint  of the hub; None: the package's default,
               or HF_ENDPOINT.
    say        told one line at each step.                progress  told how far quantizing is.
    A download that was broken off is gone on with. Whatever fails, nothing is registered, and an older model
    of that name stays.
    Raises     OptionError, DownloadError, CheckpointError (it is no model that runs here), MissingExtra.
    """
    row = known(source)
    where, _, wanted = (row.source if row else source).partition(":")
    formats = (*quantized_names(), KEEP)
    if format not in formats:
        raise OptionError.of("format", format, f"one of {', '.join(formats)}")
    if tokenizer is not None and format == KEEP:
        raise OptionError(
            "a tokenizer can be packed with a quantized model; one that is kept as it was published has what lies beside it"
        )
    if "/" not in where:
        names = [one.name for one in KNOWN]
        near = difflib.get_close_matches(where.lower(), names, 1)
        hint = f"did you mean {near[0]}? Else " if near else ""
        raise OptionError(
            f"{source!r} is no known model; {hint}want one of {', '.join(names)}, or owner/repo:file"
        )
    name = registry.check_name(name or (row.name if row else where.rpartition("/")[2]))
    say = say or _silent
    repository = look_up(where, endpoint)
    files = [describe(repository, path) for path in choose(repository, wanted)]
    key = _key(files)
    folder = registry.downloads_folder() / key
    if (here := _same(name, key, format)) is not None:
        return here
    need = row.footprint(format) if row else rough(format, sum(file.bytes for file in files))
    if not force:
        _refuse_without_room(name, need, files, folder, format)
    with _usable(folder), _alone(folder, say):
        if (here := _same(name, key, format)) is not None:
            return here
        say(f"{where}: {', '.join(file.name for file in files)}, {size(sum(file.bytes for file in files))}")
        paths = [fetch(file, folder) for file in files]
        model = paths[0] if len(_weights(files)) == 1 else folder
        say("checked; " + ("registering" if format == KEEP else "quantizing"))
        try:
            record = _install(
                name,
                model,
                paths,
                format,
                tokenizer,
                progress,
                f"{where}:{files[0].path}",
                repository.commit,
                key,
            )
        except UnknownLayout:
            shutil.rmtree(
                folder, ignore_errors=True
            )  # no download to go on with: it is another kind of thing
            raise
        shutil.rmtree(folder, ignore_errors=True)
    return record


def choose(repository: Repository, wanted: str) -> list[str]:
    """The files to fetch, weights first: `wanted` or the repository's one model, and what lies beside it.

    Raises OptionError.
    """
    weights = sorted(path for path in repository.files if path.endswith(ENDINGS))
    folder = wanted.rpartition("/")[0]
    beside = f"{folder}/" if folder else ""
    if wanted and wanted not in repository.files:
        raise OptionError(f"{repository.name} has no file {wanted!r}; it has {_few(weights)}")
    if wanted:
        chosen = [wanted]
    elif INDEX in repository.files:
        chosen = [
            path
            for path in weights
            if "/" not in path and path.startswith("model-") and path.endswith(".safetensors")
        ] + [INDEX]
    else:
        top = [path for path in weights if "/" not in path]
        chosen = [path for path in top if path == "model.safetensors"] or top
        if len(chosen) != 1:
            raise OptionError(
                f"{repository.name} holds {len(top)} models; say which: {repository.name}:FILE, with {_few(weights)}"
            )
    return chosen + [beside + path for path in COMPANIONS if beside + path in repository.files]


def _install(
    name: str,
    model: Path,
    paths: Sequence[Path],
    format: str,
    tokenizer: str | Path | None,
    progress: Progress | None,
    source: str,
    revision: str,
    key: str,
) -> Record:
    """Put the fetched files, or what quantizing makes of them, where models are kept, and register them."""
    checkpoint = open_checkpoint(model)
    if tokenizer is not None and checkpoint.packing is not None:
        raise OptionError(f"{source} is packed already, with its tokenizer; pull it without another one")
    config = families.config_of(checkpoint)  # refuses what does not run here
    stored = matrices(checkpoint.tensors)
    registry.clear_leftovers()
    place = registry.new_folder(name)
    try:
        if format != KEEP and checkpoint.packing is None:
            target, told = place / f"{name}-{format}.safetensors", _counted(checkpoint, format, progress)
            quantize(checkpoint, target, format, tokenizer=tokenizer, progress=told)
            made = format
        else:
            for path in paths:
                os.replace(path, place / path.name)
            target = place if model.is_dir() else place / model.name
            types = "/".join(sorted({tensor.type for tensor in stored}))
            made = own_format(stored).name if checkpoint.packing else types
        taken = sum(file.stat().st_size for file in place.iterdir())
        inside = str(target.relative_to(registry.models_folder()))
        record = Record(
            name,
            f"RWKV-{config.version}",
            made,
            taken,
            inside,
            source,
            revision,
            key,
            fingerprint(checkpoint),
        )
        registry.register(record)
    except BaseException:
        registry.discard(place)
        raise
    return record


def _counted(checkpoint: Checkpoint, format: str, progress: Progress | None) -> Callable[[int], None] | None:
    """`progress` as `quantize` wants it."""
    if progress is None:
        return None
    total, done = packed_bytes(checkpoint, format), 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return more


def _same(name: str, key: str, format: str) -> Record | None:
    """What is registered as `name`, if it was made of these very files in this format and is there."""
    if name not in registry.names():
        return None
    try:
        found = registry.record(name)
    except CheckpointError:
        return None  # damaged; it will be replaced
    fits = found.format not in quantized_names() if format == KEEP else found.format == format
    return found if found.digest == key and fits and registry.path_of(found).exists() else None


def _refuse_without_room(
    name: str, need: Footprint, files: Sequence[RemoteFile], folder: Path, format: str
) -> None:
    """DownloadError, with the estimate, if disk or memory are too small."""
    total = sum(file.bytes for file in files)
    here = sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else 0
    disk = max(total - here, 0) + (0 if format == KEEP else need.file)
    place = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if disk > free:
        raise DownloadError(
            f"{name} takes {size(disk)} on disk while it is pulled ({size(need.file)} afterwards), "
            f"{place} has {size(free)}; make room, or --force to try"
        )
    memory = physical_memory()
    if memory is not None and need.memory > memory:
        smaller = f"; --format {DEFAULT} takes less" if format == KEEP else ""
        raise DownloadError(
            f"{name} needs about {size(need.memory)} of memory to run, this machine has {size(memory)}"
            f"{smaller}; choose a smaller model, or --force to pull it all the same"
        )


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """What the disk refuses, as a DownloadError."""
    try:
        registry.make_folder(folder)
        yield
    except OSError as error:
        raise DownloadError(
            f"{registry.models_folder()} cannot be used: {error}; make room, or set XDG_DATA_HOME to another place"
        ) from None


@contextmanager
def _alone(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Only one process at a time fetches the same files; the others wait, and find them done."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("another process is pulling this model; waiting for it")
        lock.acquire()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        lock.release()


def _weights(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    return [file for file in files if file.name.endswith(ENDINGS)]


def _key(files: Sequence[RemoteFile]) -> str:
    """One checksum of all files: the weights' own where they are one file."""
    if len(files) == 1:
        return files[0].digest
    return hashlib.sha256("\n".join(f"{file.name} {file.digest}" for file in files).encode()).hexdigest()


def _few(paths: Sequence[str]) -> str:
    return (
        ", ".join(paths[:12]) + (f" and {len(paths) - 12} more" if len(paths) > 12 else "")
    ) or "no weights"


def _silent(line: str) -> None:
    """Say nothing."""
