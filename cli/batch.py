"""`rwkv batch`: answer the requests of a file, many at once; resumable."""

from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import echo, progress
from rwkv_engine_cli.sampling import NOTHING, Chosen, with_sampling


@with_sampling
def batch(
    requests: Annotated[
        Path, typer.Argument(metavar="IN", help="Lines of OpenAI's batch format, or of JSON texts: prompts.")
    ],
    answers: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="One line for each request; what is there already is not done again."
        ),
    ],
    model: o.Source = None,
    max_tokens: o.MaxTokens = 256,
    sampling: Chosen = NOTHING,
    max_sequences: Annotated[int, typer.Option(min=1, help="Most texts at once.")] = 32,
    weights: o.Weights = None,
    threads: o.Threads = None,
    tokenizer: o.TokenizerOption = None,
    no_cache: o.NoCache = False,
    ram: o.Ram = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="On the machines of a Ray cluster: $RAY_ADDRESS, else this one's.")
    ] = False,
    ray_cores: Annotated[
        int | None, typer.Option(min=1, help="Cores of each of Ray's actors. Default: a whole machine.")
    ] = None,
) -> None:
    """Answer the requests of a file, one line each, many at once.

    After a kill, run it again: it continues where it stopped. With --ray, the model's file has to be at the
    same place on every machine.
    """
    from rwkv_engine.errors import OptionError
    from rwkv_engine.serve.jobs import Job, run

    def tell(done: int, total: int, rate: float) -> None:
        progress(f"{done} of {total} requests, {rate:.0f} tokens/s")

    job = Job(requests, answers, sampling.over(), max_tokens, max_sequences)
    if ray:
        from rwkv_engine.serve.ray_jobs import run as run_on_ray
        from rwkv_engine.serve.running import Loader

        if ram is not None:
            raise OptionError(
                "--ram: it cannot be used with --ray; --ray-cores says how many models a machine has"
            )
        loader = Loader(weights, threads, tokenizer, not no_cache)
        done = run_on_ray(o.source(model), loader, job, ray_cores, tell)
    elif ray_cores is not None:
        raise OptionError("--ray-cores needs --ray")
    else:
        done = run(o.load_model(o.source(model), weights, threads, tokenizer, no_cache, ram), job, tell)
    progress(f"{done.answered} requests, {done.tokens} tokens", last=True)
    echo(f"{done.answered} answered now, {done.before} before, {done.failed} refused: {answers}", err=True)
