"""`rwkv generate`: continue a text."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli import options as o


def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="Text to continue; without it, --file or standard input.")
    ] = None,
    model: o.Source = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="Read the prompt from this file.")] = None,
    max_tokens: o.MaxTokens = 256,
    preset: o.Preset = None,
    temperature: o.Temperature = None,
    top_p: o.TopP = None,
    top_k: o.TopK = None,
    min_p: o.MinP = None,
    presence: o.Presence = None,
    frequency: o.Frequency = None,
    decay: o.Decay = None,
    ban: o.Ban = None,
    bias: o.Bias = None,
    seed: o.Seed = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this text; may be given again.")] = None,
    state: Annotated[Path | None, typer.Option(help="Go on from a saved state.")] = None,
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
    weights: o.Weights = None,
    threads: o.Threads = None,
    tokenizer: o.TokenizerOption = None,
    no_cache: o.NoCache = False,
    no_prefix_cache: o.NoPrefixCache = False,
    ram: o.Ram = None,
) -> None:
    """Continue a text, streaming it as it is written. With --schema, --regex or --choice only what was written is printed."""
    from rwkv_engine import OptionError

    constraint = o.make_constraint(schema, regex, choice, after)
    sampling = o.make_sampling(
        preset,
        bias,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        presence=presence,
        frequency=frequency,
        decay=decay,
        banned=ban,
        seed=seed,
    )
    text = prompt if prompt is not None and file is None else _prompt(prompt, file)
    engine = o.load_model(model, weights, threads, tokenizer, no_cache, ram)
    memory = engine.load_state(state) if state else engine.new_state()
    # the prompt goes in front of the first step: compiling may have a word before it
    shown = "" if json_lines or constraint else text
    steps = engine.generate(
        text,
        max_tokens=max_tokens,
        sampling=sampling,
        state=memory,
        stop=stop or (),
        constraint=constraint,
        prefix_cache=None if no_prefix_cache else o.prefix_cache(),
        alternatives=alternatives,
    )
    for step in steps:
        if json_lines:
            line = {
                "token": step.token,
                "text": step.text,
                "logprob": round(step.logprob, 6),
                "stop": step.stop,
            }
            if alternatives:
                line["alternatives"] = [[token, round(logprob, 6)] for token, logprob in step.alternatives]
            print(json.dumps(line, ensure_ascii=False), flush=True)
        else:
            print(shown + step.text, end="", flush=True)
            shown = ""
    if not json_lines:
        print()
    if save_state:
        o.save_state(memory, save_state)
    if step.stop == "cut":
        raise OptionError(
            f"--max-tokens: {max_tokens} were written and the text does not fit the {constraint.kind} yet; allow more"
        )


def _prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt from where the options say. Raises OptionError if they say two places, or none."""
    from rwkv_engine import OptionError

    if prompt is not None and file is not None:
        raise OptionError("got a prompt and --file; give one of them")
    if file is None and sys.stdin.isatty():
        raise OptionError("no prompt: give one as argument, with --file, or on standard input")
    return o.read_text(file)
