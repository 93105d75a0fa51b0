"""The model that the command uses where none is named; `rwkv models default` sets it."""

from rwkv_engine.errors import CheckpointError, OptionError
from rwkv_engine.library.registry import make_folder, models_folder, resolve
from rwkv_engine.system.files import expanded, write_whole

#: the file in the models folder that holds its name or path
FILE = "default"
_LIMIT = 4096


def default_model() -> str | None:
    """Its short name or path; None: the embedded model."""
    try:
        with (models_folder() / FILE).open("rb") as file:
            name = file.read(_LIMIT).decode("utf-8", "replace").strip()
    except (OSError, OptionError):
        return None
    return name or None


def set_default(source: str | None) -> None:
    """Use this model from now on: a short name, or a path; None: the embedded model.

    Raises CheckpointError for a model that is not there, and OptionError if it cannot be kept.
    """
    file = models_folder() / FILE
    try:
        if source is None:
            file.unlink(missing_ok=True)
            return
        path = resolve(source)
        if not path.exists():
            raise CheckpointError(f"{source} does not exist", path=path)
        named = path.is_relative_to(models_folder()) and not expanded(source).exists()
        write_whole(
            make_folder(models_folder()) / FILE, [(source if named else str(path.absolute())).encode()]
        )
    except OSError as error:
        raise OptionError(f"{file} cannot be written: {error.strerror or error}") from None
