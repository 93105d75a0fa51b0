"""`rwkv batch --ray`: the same job on many machines, through Ray Data.

The machine that runs the command reads the requests and alone writes the answers, so a line is written once
whatever dies elsewhere: Ray gives the requests of a dead actor to another one, and an answer that comes twice
is dropped.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rwkv_engine.errors import OptionError
from rwkv_engine.serve.jobs import Answer, Done, Job, Out, Tell, answered, opened
from rwkv_engine.serve.running import Loader
from rwkv_engine.system.extras import missing

try:
    import ray
    import ray.data
except ImportError as error:
    raise missing("a batch on several machines", "ray", error.name or "ray") from None

#: requests that an actor is given at once, for each text that it writes at once
ROUNDS = 4


def run(source: str | None, loader: Loader, job: Job, cores: int | None, tell: Tell) -> Done:
    """Answer all requests that have no answer yet, with an actor for each group of cores of a Ray cluster.

    source, loader  of the model: its file has to be at the same place on every machine.
    cores           of an actor; None: all of a machine's, or as many as the smallest machine has.
    The cluster is the one of $RAY_ADDRESS, or that of this machine, or else it is begun on this machine.
    Raises OptionError for files that cannot be read or written, and for a cluster without room.
    """
    ray.init(log_to_driver=False, logging_level="error", ignore_reinit_error=True)
    try:
        cores, actors = room_for(cores, ray.nodes())
        with opened(job, tell) as out:
            while left := [{"id": id, "line": line} for id, line in out.left()]:
                before = len(out.known)
                _spread(
                    left, source, replace(loader, threads=loader.threads or cores), job, out, cores, actors
                )
                if len(out.known) == before:
                    raise OptionError("--ray: no machine answers any request; see Ray's logs")
            return out.done
    finally:
        ray.shutdown()


def room_for(cores: int | None, nodes: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """(cores of an actor, how many actors there is room for). Raises OptionError for none."""
    found = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    cores = cores or min((count for count in found if count), default=1)
    actors = sum(count // cores for count in found)
    if not actors:
        raise OptionError(f"--ray-cores {cores}: no machine has so many; they have {found}")
    return cores, actors


def _spread(
    left: list[dict[str, Any]],
    source: str | None,
    loader: Loader,
    job: Job,
    out: Out,
    cores: int,
    actors: int,
) -> None:
    """Have all of these answered, and write what comes."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    at_once = job.max_sequences * ROUNDS
    blocks = min(len(left), max(actors, -(-len(left) // at_once)))
    found = ray.data.from_items(left, override_num_blocks=blocks).map_batches(
        Actor,
        fn_constructor_args=(source, loader, job),
        batch_size=at_once,
        num_cpus=cores,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
    )
    for row in found.iter_rows():
        out.write(Answer(row["id"], bytes(row["line"]), int(row["tokens"]), bool(row["failed"])))


class Actor:
    """A model on a group of cores. Its weights are mapped from their file: a machine has them once in memory."""

    def __init__(self, source: str | None, loader: Loader, job: Job) -> None:
        self._model, self._job = loader.load(source), job

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Answer some requests: columns of ids and lines in, columns of answers out."""
        requests = zip(batch["id"].tolist(), batch["line"].tolist(), strict=True)
        answers = list(answered(self._model, self._job, requests))
        return {name: [getattr(one, name) for one in answers] for name in ("id", "line", "tokens", "failed")}
