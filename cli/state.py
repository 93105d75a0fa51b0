"""`rwkv state`: work with state files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rwkv_engine_cli.options import Force, Json
from rwkv_engine_cli.output import echo, tell
from rwkv_engine_cli.tables import print_rows

if TYPE_CHECKING:
    from rwkv_engine.state import StateLayout
    from rwkv_engine.tools.state_files import StateFile

state = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look into, blend and convert state files."
)

File = Annotated[
    Path,
    typer.Argument(help="State file: what --save-state wrote, or a tuned time_state (.pth or safetensors)."),
]
ModelOption = Annotated[
    str | None, typer.Option("-m", "--model", help="The model whose state it is: file, folder or short name.")
]
Output = Annotated[Path, typer.Option("-o", "--output", help="File to write.")]


@state.command()
def info(
    file: File,
    model: ModelOption = None,
    as_json: Json = False,
) -> None:
    """Show a state file's kind, model, tokens, planes with shapes and norms; with --model, whether it fits."""
    import numpy as np

    from rwkv_engine.loading import open_named
    from rwkv_engine.tools.state_files import layout_of, open_state, read_state_file

    found = read_state_file(file)
    fingerprint = found.state.layout.fingerprint
    rows: dict[str, object] = {"path": str(file), "kind": found.kind}
    if found.kind == "state":
        rows |= {"model": _known_as(fingerprint), "fingerprint": fingerprint, "tokens": found.state.position}
    if model is not None:
        open_state(file, layout_of(open_named(model)))
        rows["fits"] = model
    planes = {
        name: {
            "shape": list(found.state[name].shape),
            "norm": float(np.linalg.norm(found.state[name].astype(np.float64))),
        }
        for name in found.state.names
    }
    if as_json:
        echo(json.dumps(rows | {"planes": planes}))
        return
    shown = {name: f"{plane['shape']}, norm {plane['norm']:.6g}" for name, plane in planes.items()}
    print_rows([(name, str(value)) for name, value in {**rows, **shown}.items()])


@state.command()
def blend(
    first: File,
    second: File,
    output: Output,
    weight: Annotated[float, typer.Option(help="Share of the second state, 0 to 1.")] = 0.5,
    model: ModelOption = None,
    force: Force = False,
) -> None:
    """Write a state between two of one model. To blend a state and a time_state, give --model."""
    from rwkv_engine import StateError
    from rwkv_engine.loading import open_named
    from rwkv_engine.tools import state_files as m

    _writable(output, force)
    layout = None if model is None else m.layout_of(open_named(model))
    files = [_read(path, layout) for path in (first, second)]
    if files[0].kind != files[1].kind and layout is None:
        raise StateError(
            f"{first} is a {files[0].kind} and {second} a {files[1].kind}; say with --model whose they are"
        )
    both = "time_state" if {file.kind for file in files} == {"time_state"} else "state"
    _write(output, m.StateFile(both, m.blend(files[0].state, files[1].state, weight)))


@state.command()
def convert(
    source: File,
    target: Annotated[Path, typer.Argument(help="File to write.")],
    model: ModelOption = None,
    force: Force = False,
) -> None:
    """Convert a time_state into a state of --model, or a state into a time_state (safetensors)."""
    from rwkv_engine import OptionError
    from rwkv_engine.loading import open_named
    from rwkv_engine.tools import state_files as m

    _writable(target, force)
    layout = None if model is None else m.layout_of(open_named(model))
    found = _read(source, layout)
    if found.kind == "time_state" and layout is None:
        raise OptionError(
            f"{source} is a time_state, which does not say whose it is; give its model with --model"
        )
    _write(target, m.StateFile("state" if found.kind == "time_state" else "time_state", found.state))


def _read(path: Path, layout: "StateLayout | None") -> "StateFile":
    """A state file; with the model's layout if that is known."""
    from rwkv_engine.tools.state_files import StateFile, open_state, read_state_file

    found = read_state_file(path)
    return found if layout is None else StateFile(found.kind, open_state(path, layout))


def _write(path: Path, file: "StateFile") -> None:
    from rwkv_engine import OptionError
    from rwkv_engine.tools.state_files import save_state_file

    try:
        save_state_file(path, file)
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror or error}") from None
    tell(f"{path}: {file.kind}, {path.stat().st_size:,} bytes")


def _writable(path: Path, force: bool) -> None:
    from rwkv_engine import OptionError

    if path.exists() and not force:
        raise OptionError(f"{path} exists; give another name, or --force to write over it", path=path)


def _known_as(fingerprint: str) -> str:
    """Registered names of the model with this fingerprint."""
    from rwkv_engine.errors import CheckpointError
    from rwkv_engine.library import registry
    from rwkv_engine.loading import open_named
    from rwkv_engine.tools.state_files import layout_of

    known = []
    for name in registry.names():
        try:
            known += [name] if registry.record(name).fingerprint == fingerprint else []
        except CheckpointError:
            continue  # a damaged record; `rwkv models` says so
    try:
        known += ["the embedded model"] if layout_of(open_named(None)).fingerprint == fingerprint else []
    except CheckpointError:
        pass  # an installation without it
    return ", ".join(known) or "none that is registered here"
