"""`rwkv`: the list of verbs, and what every failure looks like: one line on stderr and exit code 2."""

import os
import sys

import typer
from rwkv_engine_cli.bench import bench
from rwkv_engine_cli.chat import chat
from rwkv_engine_cli.generate import generate
from rwkv_engine_cli.info import info
from rwkv_engine_cli.models import models
from rwkv_engine_cli.pull import pull
from rwkv_engine_cli.quantize import quantize
from rwkv_engine_cli.sessions import sessions
from rwkv_engine_cli.state import state
from rwkv_engine_cli.tokenize import tokenize
from rwkv_engine_cli.warmup import warmup

from rwkv_engine import __version__
from rwkv_engine.errors import EngineError
from rwkv_engine.system import support

#: exit codes: bad input; stopped by ctrl-C (128 + SIGINT)
BAD_INPUT, INTERRUPTED = 2, 130

app = typer.Typer(
    help="Run RWKV language models on this computer: CPU only, constant memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rwkv-engine {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and leave.", callback=_version, is_eager=True
    ),
) -> None:
    """Options before the verb."""


for verb in (generate, chat, info, tokenize, quantize, bench, pull, warmup):
    app.command()(verb)
app.add_typer(state, name="state")
app.add_typer(models, name="models")
app.add_typer(sessions, name="sessions")


def main() -> None:
    """Run the command line; turn every refusal of the engine into one line."""
    try:
        support.check()
        app()
    except EngineError as error:
        print(f"rwkv: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # whoever read our output has left; give Python's own flush at exit somewhere harmless to write to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
