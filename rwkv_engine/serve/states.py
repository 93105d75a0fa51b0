"""/v1/states, /v1/tokenize and /v1/embeddings: what only an engine with states of constant size can offer,
and small things.
"""

import asyncio
import base64
import secrets
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic.dataclasses import dataclass
from starlette.requests import Request
from starlette.responses import Response

from rwkv_engine.errors import StateError
from rwkv_engine.model import Model
from rwkv_engine.serve import endpoints
from rwkv_engine.serve.http import body_of, json_response
from rwkv_engine.serve.keeping import Kept, checked_id
from rwkv_engine.serve.planning import checked
from rwkv_engine.serve.problems import Problem
from rwkv_engine.serve.requests import EXACT, StateId

#: ids of states that were saved on purpose begin so
PREFIX = "state_"


@dataclass(frozen=True, slots=True, config=EXACT)
class Save:
    """The body of POST /v1/states: keep what an answer or another state holds, under an id of its own."""

    model: str
    source: str
    id: StateId = None


@dataclass(frozen=True, slots=True, config=EXACT)
class Words:
    """The body of /v1/tokenize."""

    model: str
    input: str | list[str]


@dataclass(frozen=True, slots=True, config=EXACT)
class Embed:
    """The body of /v1/embeddings."""

    model: str
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


def _named(id: str | None) -> str:
    """The id of a saved state."""
    return checked_id(id if id and id.startswith(PREFIX) else PREFIX + (id or secrets.token_hex(12)))


@endpoints.takes(Save)
async def save(request: Request, asks: Save) -> Response:
    """Keep an answer's state, or a fork of a kept one."""
    server, owner = endpoints.server_of(request), request.state.owner
    hosted = await server.pool.take(asks.model)
    try:
        kept = await asyncio.to_thread(server.keeper.get, owner, asks.source, hosted.model, hosted.name)
    finally:
        server.pool.give(hosted)
    id, about = _named(asks.id), {name: kept.about[name] for name in ("tools",) if name in kept.about}
    await asyncio.to_thread(server.keeper.put, owner, id, Kept(kept.state, kept.rest, hosted.name, about))
    return json_response(await asyncio.to_thread(_about, server, owner, id))


async def all_of_them(request: Request) -> Response:
    """The kept states."""
    server, owner = endpoints.server_of(request), request.state.owner
    ids = await asyncio.to_thread(server.keeper.ids, owner, PREFIX)
    return json_response(
        {"object": "list", "data": await asyncio.to_thread(lambda: [_about(server, owner, id) for id in ids])}
    )


async def download(request: Request) -> Response:
    """The bytes of a state file."""
    server, owner, id = endpoints.server_of(request), request.state.owner, request.path_params["id"]
    notes = await asyncio.to_thread(server.keeper.notes, owner, id)
    hosted = await server.pool.take(str(notes["model"]))
    try:
        kept = await asyncio.to_thread(server.keeper.get, owner, id, hosted.model, hosted.name)
        data = await asyncio.to_thread(_bytes, hosted.model, kept)
    finally:
        server.pool.give(hosted)
    return Response(data, media_type="application/octet-stream")


async def upload(request: Request) -> Response:
    """Keep a state file, or a tuned time_state."""
    server, owner = endpoints.server_of(request), request.state.owner
    id = _named(request.path_params["id"])
    data = await body_of(request, max(server.limits.body, 1 << 28), server.limits.patience * 4)
    hosted = await server.pool.take(request.query_params.get("model", ""))
    try:
        state = await asyncio.to_thread(_read, hosted.model, data)
    finally:
        server.pool.give(hosted)
    await asyncio.to_thread(server.keeper.put, owner, id, Kept(state, (), hosted.name))
    return json_response(await asyncio.to_thread(_about, server, owner, id))


async def delete(request: Request) -> Response:
    """Forget a state."""
    server, id = endpoints.server_of(request), request.path_params["id"]
    await asyncio.to_thread(server.keeper.delete, request.state.owner, id)
    return json_response({"id": id, "object": "state", "deleted": True})


def _about(server: Any, owner: str, id: str) -> dict[str, Any]:
    return {"id": id, "object": "state", "model": server.keeper.notes(owner, id)["model"]}


def _bytes(model: Model, kept: Kept) -> bytes:
    """A state file's bytes; what is still to be read is read first."""
    state = kept.state.fork()
    if kept.rest:
        model.skim(kept.rest, state)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        state.save(path, sync=False)
        return path.read_bytes()


def _read(model: Model, data: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        path.write_bytes(data)
        try:
            return model.load_state(path)
        except StateError as error:
            sentence = str(error).replace(f"{path}: ", "").replace(str(path), "the file")
            raise Problem(400, sentence, code="wrong_state") from None


@endpoints.takes(Words)
async def tokenize(request: Request, asks: Words) -> Response:
    """Token ids of texts, and how many they are."""
    server = endpoints.server_of(request)
    hosted = await server.pool.take(asks.model)
    try:
        texts = [asks.input] if isinstance(asks.input, str) else asks.input
        ids = await asyncio.to_thread(lambda: [hosted.model.tokenizer.encode(text) for text in texts])
    finally:
        server.pool.give(hosted)
    rows = [{"index": at, "tokens": row, "count": len(row)} for at, row in enumerate(ids)]
    return json_response({"object": "list", "model": asks.model, "data": rows, "count": sum(map(len, ids))})


@endpoints.takes(Embed)
async def embeddings(request: Request, asks: Embed) -> Response:
    """Means of the last layer's hidden vectors, of length 1: no trained embedding model."""
    server = endpoints.server_of(request)
    texts: list[Any] = asks.input if isinstance(asks.input, list) else [asks.input]
    texts = [texts] if texts and isinstance(texts[0], int) else texts
    hosted = await server.pool.take(asks.model)
    try:
        rows, count = await asyncio.to_thread(_embedded, hosted.model, texts, server.limits)
    finally:
        server.pool.give(hosted)
    data = []
    for at, row in enumerate(rows):
        packed = base64.b64encode(row.astype("<f4").tobytes()).decode()
        vector: Any = packed if asks.encoding_format == "base64" else [round(float(x), 8) for x in row]
        data.append({"object": "embedding", "index": at, "embedding": vector})
    usage = {"prompt_tokens": count, "total_tokens": count}
    return json_response({"object": "list", "data": data, "model": asks.model, "usage": usage})


def _embedded(model: Model, texts: list[Any], limits: Any) -> tuple[list[np.ndarray], int]:
    """(vectors [C], tokens read); other texts of the model get their turn between pieces of 64 tokens."""
    rows, count = [], 0
    if not texts or len(texts) > 2048:
        raise Problem(400, "Invalid 'input': want 1 to 2,048 texts.", param="input", code="invalid_value")
    for text in texts:
        ids = model.tokenizer.encode(text) if isinstance(text, str) else list(text)
        checked(ids, limits, 1)
        if not ids:
            raise Problem(400, "Invalid 'input': a text is empty.", param="input", code="invalid_value")
        (vector,) = model.embed([ids])
        rows.append(vector / np.float32(max(float(np.linalg.norm(vector)), 1e-12)))
        count += len(ids)
    return rows, count
