"""The lines of --verbose after a text: speeds, times, memory, and why it stopped."""

from typing import TYPE_CHECKING

from rwkv_engine_cli.output import complain

if TYPE_CHECKING:
    from rwkv_engine import Usage

#: why a text ended, for people
WHY = {
    "end": "the model ended it",
    "length": "it reached --max-tokens",
    "stop": "a stop string came",
    "complete": "it fits the constraint",
    "cut": "it reached --max-tokens before it fits the constraint",
    "cancelled": "ctrl-C",
    None: "ctrl-C",
}


def show_usage(usage: "Usage", stop: str | None) -> None:
    """Print them on standard error."""
    from rwkv_engine.numbers.sizes import size
    from rwkv_engine.system import pages

    known = f", {usage.cached_tokens:,} of them from the prefix cache" if usage.cached_tokens else ""
    written = usage.seconds - usage.prompt_seconds
    complain(
        f"prompt: {usage.prompt_tokens:,} tokens{known}, {usage.prompt_seconds:.2f} s, "
        f"{usage.prompt_rate:,.1f} tokens/s; first token after {usage.prompt_seconds:.2f} s"
    )
    complain(f"answer: {usage.tokens:,} tokens, {written:.2f} s, {usage.rate:,.1f} tokens/s")
    peak = pages.peak()
    complain(f"peak memory: {size(peak) if peak else 'unknown'}; stopped: {WHY.get(stop, stop)}")


def usage_json(usage: "Usage") -> dict[str, float]:
    """The same for programs."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "tokens": usage.tokens,
        "prompt_seconds": round(usage.prompt_seconds, 6),
        "seconds": round(usage.seconds, 6),
        "tokens_per_second": round(usage.rate, 3),
    }
