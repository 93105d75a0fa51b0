"""A server in this process, on a port of its own, with the model that the other tests use."""

import asyncio
import contextlib
import socket
import threading

import pytest

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")
uvicorn = pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")
pytest.importorskip("openai")

from rwkv_engine.serve.app import make_app  # noqa: E402
from rwkv_engine.serve.patience import patient  # noqa: E402
from rwkv_engine.serve.server import Server, Settings  # noqa: E402


@contextlib.contextmanager
def running(model, **settings):
    """(server, base address) of a server on `model`."""
    made, started = {}, threading.Event()
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(256)

    async def main():
        server = Server(
            Settings(**{"sources": {"small": None}, "prefixes": False, **settings}),
            lambda source: model,
            lambda source: 1,
        )
        made["server"], made["loop"] = server, asyncio.get_running_loop()
        http = patient(server.limits.patience)
        config = uvicorn.Config(make_app(server), log_level="error", lifespan="on", http=http, ws="none")
        made["web"] = uvicorn.Server(config)
        started.set()
        await made["web"].serve(sockets=[sock])

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    started.wait(30)
    try:
        yield made["server"], f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(made["server"].stop(), made["loop"]).result(30)
        made["web"].should_exit = True
        thread.join(30)


@pytest.fixture(scope="session")
def serve():
    """serve(model, **settings): a context of (server, base address)."""
    return running


@pytest.fixture(scope="session")
def served(embedded, tmp_path_factory):
    """(server, base address) on the embedded model."""
    with running(embedded, folder=tmp_path_factory.mktemp("states")) as found:
        yield found


@pytest.fixture
def address(served):
    """Where the server is."""
    return served[1]


@pytest.fixture
def client(address):
    """A client that nobody here wrote."""
    import openai

    with openai.OpenAI(base_url=f"{address}/v1", api_key="any-key", max_retries=0) as found:
        yield found
