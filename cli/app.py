"""`rwkv`: the list of verbs, and the form of errors: one line on standard error and exit code 2."""

import difflib
import os
import sys
from typing import Any

import typer
from rwkv_engine_cli.batch import batch
from rwkv_engine_cli.bench import bench
from rwkv_engine_cli.cache import cache
from rwkv_engine_cli.chat.verb import chat
from rwkv_engine_cli.distill import distill
from rwkv_engine_cli.eval import eval
from rwkv_engine_cli.generate import generate
from rwkv_engine_cli.info import info
from rwkv_engine_cli.models import models
from rwkv_engine_cli.output import complain, echo, open_streams, silence, tell
from rwkv_engine_cli.preparing import leave
from rwkv_engine_cli.prune import prune
from rwkv_engine_cli.pull import offer, pull
from rwkv_engine_cli.quantize import quantize
from rwkv_engine_cli.serve import serve
from rwkv_engine_cli.sessions import sessions
from rwkv_engine_cli.state import state
from rwkv_engine_cli.tokenize import tokenize
from rwkv_engine_cli.warmup import warmup

from rwkv_engine import __version__
from rwkv_engine.errors import CheckpointError, EngineError
from rwkv_engine.system import support

#: exit codes: bad input; stopped by ctrl-C (128 + SIGINT)
BAD_INPUT, INTERRUPTED = 2, 130
#: what typer raises for a misspelt option or a missing argument, whichever of its versions is installed
UsageError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    help="Run RWKV language models on this computer: CPU only, constant memory.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    # help is as wide as the terminal
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 1000},
)


def _version(wanted: bool) -> None:
    if wanted:
        echo(f"rwkv-engine {__version__}")
        raise typer.Exit()


#: what `rwkv` alone says
BEGIN = f"""\
rwkv-engine {__version__} runs RWKV language models on this computer. To begin:

  rwkv chat                             have a conversation with a model
  rwkv generate "Once upon a time"      continue a text
  rwkv pull                             list larger models, and get one

rwkv --help lists all commands."""


@app.callback()
def _options(
    context: typer.Context,
    version: bool = typer.Option(
        False, "-V", "--version", help="Print the version and leave.", callback=_version, is_eager=True
    ),
) -> None:
    """Options before the verb."""
    if context.invoked_subcommand is None:
        tell(BEGIN)


for verb in (
    generate,
    chat,
    info,
    tokenize,
    quantize,
    prune,
    distill,
    bench,
    eval,
    pull,
    serve,
    batch,
    warmup,
):
    app.command()(verb)
app.add_typer(state, name="state")
app.add_typer(models, name="models")
app.add_typer(sessions, name="sessions")
app.add_typer(cache, name="cache")


def main() -> None:
    """Run the command line; every EngineError becomes one line."""
    open_streams()
    try:
        support.check()
        if "_RWKV_COMPLETE" in os.environ:  # a shell asks how a line may go on
            app(prog_name="rwkv")
        try:
            _invoke()
        except CheckpointError as error:  # told before anything is done: what was asked for can be done again
            if not offer(error):
                raise
            _invoke()
        sys.stdout.flush()
        code = 0
    except typer.Exit as left:
        code = left.exit_code
    except UsageError as error:
        code = _misused(error)
    except EngineError as error:
        complain(error)
        code = BAD_INPUT
    except UnicodeEncodeError as error:  # bytes of an argument that the locale does not know
        complain(f"got {error.object[:60]!r}, want text in this terminal's encoding")
        code = BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read our output has left
        code = 0
    except OSError as error:
        # the folder that the program was started in may have been deleted
        unnamed = "the current folder" if isinstance(error, FileNotFoundError) else "standard output"
        complain(f"{error.filename or unnamed}: {error.strerror or error}")
        code = BAD_INPUT
    silence(sys.stdout)
    leave(code)
    raise SystemExit(code)


def _invoke() -> None:
    command = typer.main.get_command(app)
    with command.make_context("rwkv", sys.argv[1:]) as context:
        command.invoke(context)


def _misused(error: Any) -> int:
    """Report a wrong option or argument in one line, with the nearest existing option."""
    message, context = error.format_message(), error.ctx
    if "\n" in message:  # the help of a command that was called without arguments
        echo(message, err=True)
        return BAD_INPUT
    wrong = getattr(error, "option_name", None)
    options = [name for parameter in context.command.params for name in parameter.opts] if context else []
    near = difflib.get_close_matches(wrong, options, 1) if wrong else []
    hint = f" Did you mean {near[0]!r}?" if near else ""
    name = context.command_path if context else "rwkv"
    complain(f"{message.split(' (Possible')[0]}{hint} See {name} --help.")
    return BAD_INPUT


if __name__ == "__main__":
    main()
