"""`rwkv chat`: talk to a model, plainly."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rwkv_engine_cli import options as o

if TYPE_CHECKING:
    from rwkv_engine import Model, Sampling, State
    from rwkv_engine.text.chat import ChatTemplate


def chat(
    model: o.Source = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    template: Annotated[str | None, typer.Option(help="Name of the chat template; default: the model's.")] = None,
    max_tokens: o.MaxTokens = 512,
    preset: o.Preset = None,
    temperature: o.Temperature = None,
    top_p: o.TopP = None,
    top_k: o.TopK = None,
    min_p: o.MinP = None,
    presence: o.Presence = None,
    frequency: o.Frequency = None,
    decay: o.Decay = None,
    seed: o.Seed = None,
    weights: o.Weights = None,
    threads: o.Threads = None,
    tokenizer: o.TokenizerOption = None,
    no_cache: o.NoCache = False,
    ram: o.Ram = None,
) -> None:
    """Talk to a model. Ctrl-C stops an answer and not the program; ctrl-D leaves."""
    from rwkv_engine.text.chat import template_for, template_named

    sampling = o.make_sampling(
        preset,
        None,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        presence=presence,
        frequency=frequency,
        decay=decay,
        seed=seed,
    )
    engine = o.load_model(model, weights, threads, tokenizer, no_cache, ram)
    form = template_named(template) if template else template_for(engine.config.vocab)
    state = engine.new_state()
    before = form.opening(system)
    for said in _lines():
        _answer(engine, before + form.turn(said), state, sampling, max_tokens, form)
        before = form.between
    if sys.stdin.isatty():
        print()


def _answer(model: "Model", prompt: str, state: "State", sampling: "Sampling", max_tokens: int, form: "ChatTemplate") -> None:
    """Print one answer as it is written. Ctrl-C ends it; the state then holds what was said so far."""
    steps = model.generate(prompt, max_tokens=max_tokens, sampling=sampling, state=state, stop=form.stops)
    begun = False
    try:
        for step in steps:
            text = step.text if begun else step.text.lstrip()
            begun = begun or bool(text)
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        steps.close()
    print()


def _lines() -> Iterator[str]:
    """What the person says, line by line, until end of input; blank lines are passed over."""
    shown = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(shown)
        except EOFError:
            return
        except KeyboardInterrupt:
            print("  (ctrl-D leaves)")
            continue
        if line.strip():
            yield line
