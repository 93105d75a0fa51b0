"""`rwkv generate`: continue a text."""

import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.interrupt import Interrupt, interruptible
from rwkv_engine_cli.output import Stream, complain, echo, progress
from rwkv_engine_cli.sampling import NOTHING, Chosen, with_sampling
from rwkv_engine_cli.usage import show_usage

if TYPE_CHECKING:
    from rwkv_engine import Step

#: seconds of reading before anything is said of it
PATIENCE = 0.4
#: characters of a prompt that is worth a compiled tokenizer
LONG = 1000


@with_sampling
def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="Text to continue. Standard input is put in front of it; - or nothing: only standard input."
        ),
    ] = None,
    model: o.Source = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="Read the prompt from this file.")] = None,
    max_tokens: o.MaxTokens = 256,
    sampling: Chosen = NOTHING,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this text; may be given again.")] = None,
    state: Annotated[Path | None, typer.Option(help="Start from a saved state.")] = None,
    save_state: Annotated[Path | None, typer.Option(help="Save the state after the last token.")] = None,
    schema: o.Schema = None,
    regex: o.Regex = None,
    choice: o.Choice = None,
    after: o.After = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="A JSON object per token instead of text.")
    ] = False,
    alternatives: Annotated[
        int, typer.Option(help="With --json: name this many of the likeliest tokens at each step.")
    ] = 0,
    draft: o.Draft = None,
    verbose: o.Verbose = False,
    weights: o.Weights = None,
    threads: o.Threads = None,
    tokenizer: o.TokenizerOption = None,
    no_cache: o.NoCache = False,
    no_prefix_cache: o.NoPrefixCache = False,
    ram: o.Ram = None,
    lora: o.Lora = None,
    lora_alpha: o.LoraAlpha = None,
) -> None:
    """Continue a text and print it as it is written.

    With --schema, --regex or --choice the prompt is not printed.
    """
    from rwkv_engine import OptionError

    if alternatives and not json_lines:
        raise OptionError("--alternatives: they are told only with --json")
    constraint = o.make_constraint(schema, regex, choice, after)
    text = o.read_prompt(prompt, file)
    if text is None:
        raise OptionError("no prompt: give one as argument, with --file, or on standard input")
    engine = o.load_model(
        o.source(model), weights, threads, tokenizer, no_cache, ram, lora=lora, lora_alpha=lora_alpha
    )
    drafts = o.draft(draft, weights, threads, no_cache, ram)
    memory = engine.load_state(state) if state else engine.new_state()
    # the prompt goes in front of the first step: compiling may have a word before it
    shown = "" if json_lines or constraint else text
    o.prepare(engine, drafts, len(text) > LONG).wait()
    reading = _Reading()
    with interruptible() as interrupt:
        steps = engine.generate(
            text,
            max_tokens=max_tokens,
            sampling=sampling.over(),
            state=memory,
            stop=stop or (),
            constraint=constraint,
            cancel=interrupt,
            prefix_cache=None if no_prefix_cache else o.prefix_cache(),
            alternatives=alternatives,
            draft=drafts,
            progress=reading,
        )
        try:
            step = _show(steps, interrupt, reading, shown, json_lines)
        except OSError:  # the output cannot be written any more: what was written counts
            steps.close()
            if save_state:
                memory.save(save_state)
            raise
        except KeyboardInterrupt:
            reading.over()
            if save_state:
                complain(f"stopped within a token, so {save_state} is not written")
            raise
        if save_state:
            memory.save(save_state)
    if verbose:
        show_usage(step.usage, step.stop)
    if step.stop == "cancelled":
        raise KeyboardInterrupt
    if step.stop == "cut" and constraint is not None:
        raise OptionError(
            f"--max-tokens: {max_tokens} were written and the text does not fit the {constraint.kind} yet; allow more"
        )


class _Reading:
    """Shows how much of a long prompt is read, on the terminal."""

    __slots__ = ("_began", "_shown")

    def __init__(self) -> None:
        self._began, self._shown = time.monotonic(), 0.0

    def __call__(self, done: int, total: int) -> None:
        """`Model.generate`'s `progress`."""
        now = time.monotonic()
        if now - self._began > PATIENCE and now - self._shown > PATIENCE / 4:
            self._shown = now
            progress(f"reading {done:,} of {total:,} tokens")

    def over(self) -> None:
        """Take the line away."""
        if self._shown:
            self._shown = 0.0
            progress("")


def _show(
    steps: "Generator[Step]", interrupt: Interrupt, reading: _Reading, before: str, json_lines: bool
) -> "Step":
    """Print each step as it comes and return the last one. The first ctrl-C ends the text between two tokens."""
    out = Stream()
    for step in steps:
        interrupt.begun = True
        reading.over()
        if json_lines:
            line: dict[str, object] = {
                "token": step.token,
                "text": step.text,
                "logprob": round(step.logprob, 6),
                "stop": step.stop,
            }
            if step.alternatives:
                line["alternatives"] = [[token, round(logprob, 6)] for token, logprob in step.alternatives]
            echo(json.dumps(line, ensure_ascii=False))
        else:
            out.write(before + step.text)
            before = ""
    if not json_lines:
        echo()
    return step
