"""The server on many machines, as a deployment of Ray Serve: `serve run rwkv_engine.serve.ray:app model=...`.

Each replica is the whole application of `rwkv serve` with a model of its own. A request that goes on from a state
is led to the replica that holds it. The bytes of every state also lie in Ray's object store, in the care of an
actor on the head's machine: where a replica is gone, or busy, another one takes the state from there.
"""

import asyncio
import json
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from rwkv_engine.errors import OptionError
from rwkv_engine.model import Model
from rwkv_engine.serve.app import make_app
from rwkv_engine.serve.http import body_of, refusal, to_json
from rwkv_engine.serve.problems import Problem
from rwkv_engine.serve.running import Loader, Settings
from rwkv_engine.serve.security import Door
from rwkv_engine.serve.server import Server
from rwkv_engine.system.extras import missing

try:
    import ray
    from ray import serve
    from ray.serve.config import RequestRouterConfig
    from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica
except ImportError as error:
    raise missing("a server on several machines", "ray", error.name or "ray") from None

#: fields of a request that name a state, and parts of a scope that travel
NAMES = ("previous_response_id", "state", "source")
PARTS = (
    "type",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "headers",
    "root_path",
)
GONE = Problem(503, "The replica that answered is gone; try again.", code="replica_gone", after=5)


class Store:
    """Where each state is, and its bytes: in the object store of this actor's machine.

    most  bytes that are kept; what was not used for the longest time goes.
    """

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._kept: OrderedDict[tuple[str, str], tuple[Any, dict[str, Any], str, int]] = OrderedDict()

    def put(self, owner: str, id: str, data: bytes, notes: dict[str, Any], at: str) -> None:
        """Keep a state's bytes; the replica `at` has it in memory."""
        self.delete(owner, id)
        self._kept[owner, id] = ray.put(data), notes, at, len(data)
        self._size += len(data)
        while self._size > self._most and len(self._kept) > 1:
            self.delete(*next(iter(self._kept)))

    def get(self, owner: str, id: str) -> Any:
        """The reference of the bytes, in a list; None for an unknown id."""
        found = self._kept.get((owner, id))
        if found is None:
            return None
        self._kept.move_to_end((owner, id))
        return [found[0]]

    def notes(self, owner: str, id: str) -> dict[str, Any] | None:
        """What is known of a state."""
        found = self._kept.get((owner, id))
        return None if found is None else found[1]

    def where(self, owner: str, id: str) -> str:
        """The replica that has it in memory, or had."""
        found = self._kept.get((owner, id))
        return "" if found is None else found[2]

    def ids(self, owner: str) -> list[str]:
        """All ids of an owner."""
        return [id for who, id in self._kept if who == owner]

    def delete(self, owner: str, id: str) -> None:
        """Forget a state."""
        found = self._kept.pop((owner, id), None)
        self._size -= found[3] if found is not None else 0


class Elsewhere:
    """The store as a keeper of one replica knows it."""

    __slots__ = ("_at", "_store")

    def __init__(self, store: Any, at: str) -> None:
        self._store, self._at = store, at

    def put(self, owner: str, id: str, data: bytes, notes: dict[str, Any]) -> None:
        """See `Store.put`."""
        ray.get(self._store.put.remote(owner, id, data, notes, self._at))

    def get(self, owner: str, id: str) -> bytes | None:
        """The bytes of a state."""
        found = ray.get(self._store.get.remote(owner, id))
        return None if found is None else ray.get(found[0])

    def notes(self, owner: str, id: str) -> dict[str, Any] | None:
        """See `Store.notes`."""
        found: dict[str, Any] | None = ray.get(self._store.notes.remote(owner, id))
        return found

    def ids(self, owner: str) -> list[str]:
        """See `Store.ids`."""
        found: list[str] = ray.get(self._store.ids.remote(owner))
        return found

    def delete(self, owner: str, id: str) -> None:
        """See `Store.delete`."""
        ray.get(self._store.delete.remote(owner, id))


class Router(RequestRouter):
    """To the replica that a request names first, else to the one with the least to do. Ray wants a subclass."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of replicas: the next is asked only where one is full or gone."""
        wanted = ""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
            wanted = pending_request.metadata.multiplexed_model_id
        here = [one for one in candidate_replicas if one.replica_id.unique_id == wanted]
        return [here, candidate_replicas] if here else [candidate_replicas]


class Replica:
    """The application of `rwkv serve`, with its engine and its models."""

    def __init__(self, settings: Settings, loader: Loader, store: Any) -> None:
        self.name = serve.get_replica_context().replica_id.unique_id
        first = next(iter(settings.sources.values()))
        ready = loader.load(first)

        def load(source: str | None) -> Model:
            return ready if source == first else loader.load(source)

        self._server = Server(settings, load, loader.weigh, Elsewhere(store, self.name))
        self._app = make_app(self._server)

    async def answer(self, scope: dict[str, Any], body: bytes) -> AsyncIterator[dict[str, Any]]:
        """The messages of an answer; who stops to listen has left."""
        self._server.open()
        messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        asked, left = [{"type": "http.request", "body": body, "more_body": False}], asyncio.Event()

        async def receive() -> dict[str, Any]:
            if asked:
                return asked.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def work() -> None:
            try:
                await self._app(scope, receive, messages.put)  # type: ignore[arg-type]
            finally:
                messages.put_nowait(None)

        task = asyncio.create_task(work())
        try:
            while (message := await messages.get()) is not None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (b"x-rwkv-replica", self.name.encode())]
                yield message
        finally:
            left.set()
            await asyncio.gather(task, return_exceptions=True)


class Front:
    """What the proxy hands requests to: finds the replica, and passes its answer on."""

    def __init__(self, replicas: Any, settings: Settings, store: Any) -> None:
        self._replicas, self._limits, self._store = replicas, settings.limits, store
        self._door = Door(settings.keys, settings.origins, settings.local)

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        try:
            data = await body_of(request, max(self._limits.body, 1 << 28), self._limits.patience * 4)
            at = await self._where(request, data)
        except Problem as problem:
            return refusal(problem)
        scope = {name: request.scope[name] for name in PARTS if name in request.scope}
        scope["headers"] = [tuple(pair) for pair in scope["headers"]]
        messages = self._replicas.options(stream=True, multiplexed_model_id=at).answer.remote(scope, data)
        try:
            start = await anext(messages)
        except Exception as error:  # whatever Ray says of a replica that died
            print(f"rwkv: {type(error).__name__}: {str(error)[:200]}", flush=True)
            return refusal(GONE)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        return StreamingResponse(_bodies(messages, headers), start["status"], headers)

    async def _where(self, request: Request, data: bytes) -> str:
        """The replica that holds the state which a request names; "": any. Raises Problem for a wrong key."""
        id = _named(request.url.path, data)
        if not id or request.url.path in ("/", "/health"):
            return ""
        owner = self._door.owner(request.headers)
        found: str = await self._store.where.remote(owner, id)
        return found


async def _bodies(messages: Any, headers: dict[str, str]) -> AsyncIterator[bytes]:
    try:
        async for message in messages:
            if message.get("body"):
                yield message["body"]
    except ray.exceptions.RayError:
        if headers.get("content-type", "").startswith("text/event-stream"):
            yield b"data: " + to_json(GONE.body()) + b"\n\ndata: [DONE]\n\n"
            return
        raise


def _named(path: str, data: bytes) -> str:
    """The id of the state that a request begins with."""
    parts = path.strip("/").split("/")
    if len(parts) == 3 and parts[:2] in (["v1", "responses"], ["v1", "states"]):
        return parts[2]
    try:
        body = json.loads(data) if data.startswith(b"{") else {}
    except (ValueError, RecursionError):
        return ""
    found = next((body[name] for name in NAMES if body.get(name)), "")
    return found if isinstance(found, str) else ""


def deployment(
    settings: Settings, loader: Loader, replicas: int = 2, cores: int = 1, memory: int = 1 << 30
) -> serve.Application:
    """The application for `ray.serve.run`.

    replicas  how many, each with `cores` cores.    memory  bytes of states in the object store at most.
    The folder of `settings` is not used: states lie in the object store. Needs a running cluster.
    """
    head = {"node:__internal_head__": 0.001} if "node:__internal_head__" in ray.cluster_resources() else {}
    kept = {"name": "rwkv-states", "namespace": "rwkv", "get_if_exists": True, "lifetime": "detached"}
    store = ray.remote(Store).options(num_cpus=0, max_restarts=-1, resources=head, **kept).remote(memory)
    settings, loader = replace(settings, folder=None), replace(loader, threads=loader.threads or cores)
    at_once = settings.limits.queue + settings.limits.sequences
    config = RequestRouterConfig(request_router_class=Router)
    made = serve.deployment(
        Replica,
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cores},
        max_ongoing_requests=at_once,
        request_router_config=config,
    ).bind(settings, loader, store)
    front: Callable[..., Any] = serve.deployment(
        Front, ray_actor_options={"num_cpus": 0}, max_ongoing_requests=at_once * replicas
    ).bind
    return front(made, settings, store)


def app(args: dict[str, str]) -> serve.Application:
    """What `serve run rwkv_engine.serve.ray:app NAME=VALUE ...` runs.

    model, weights  as for `rwkv serve`; `name` is what clients call the model.    replicas, cores  see
    `deployment`.   Without RWKV_API_KEY only names of this machine are answered to.
    """
    unknown = set(args) - {"model", "name", "weights", "replicas", "cores"}
    if unknown:
        raise OptionError(f"{sorted(unknown)[0]}: want model, name, weights, replicas, cores")
    key = os.environ.get("RWKV_API_KEY", "")
    settings = Settings(
        {args.get("name", "rwkv"): args.get("model")}, keys=(key,) if key else (), local=not key
    )
    loader = Loader(args.get("weights"))
    return deployment(settings, loader, int(args.get("replicas", 2)), int(args.get("cores", 1)))
