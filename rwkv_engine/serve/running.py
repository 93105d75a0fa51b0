"""From settings to a server that listens, until it is told to stop."""

import asyncio
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rwkv_engine.errors import OptionError
from rwkv_engine.loading import load, open_named
from rwkv_engine.model import Model
from rwkv_engine.running.memory import estimate
from rwkv_engine.system import folders
from rwkv_engine.system.extras import missing

try:
    import uvicorn

    from rwkv_engine.serve.app import make_app
    from rwkv_engine.serve.patience import patient
    from rwkv_engine.serve.planning import Limits
    from rwkv_engine.serve.security import is_loopback, need_key
    from rwkv_engine.serve.server import Server, Settings
except ImportError as error:
    raise missing("a server", "serve", error.name or "starlette") from None

__all__ = ["Limits", "Loader", "Settings", "data_folder", "is_loopback", "need_key", "run"]


def data_folder() -> Path | None:
    """Where states are kept; None for a user without a home."""
    try:
        return folders.private_folder(folders.data_folder()) / "serve"
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Loader:
    """How models are loaded: see `rwkv_engine.load`."""

    weights: str | None = None
    threads: int | None = None
    tokenizer: str | None = None
    cache: bool = True

    def load(self, source: str | None) -> Model:
        """The model, ready to run: its program is compiled."""
        model = load(source, self.weights, self.threads, tokenizer=self.tokenizer, cache=self.cache)
        for _ in model.generate([0], max_tokens=2):
            pass
        return model

    def weigh(self, source: str | None) -> int:
        """Bytes of memory that it takes, about."""
        found = estimate(open_named(source), self.weights, cache=self.cache)
        return found.private + found.mapped + found.scratch


def run(
    settings: Settings,
    loader: Loader,
    host: str,
    port: int,
    log: bool = False,
    tell: Callable[[str], None] = print,
) -> None:
    """Listen until SIGTERM or ctrl-C; then texts under way get `settings.grace` seconds, and a last event.

    The first model is loaded before anybody is answered. Raises OptionError where it cannot listen, and what
    loading raises.
    """
    with _listen(host, port) as sock:
        first = next(iter(settings.sources.values()))
        ready = loader.load(first)
        asyncio.run(_serve(settings, loader, first, ready, sock, log, tell))


async def _serve(
    settings: Settings,
    loader: Loader,
    first: str | None,
    ready: Model,
    sock: socket.socket,
    log: bool,
    tell: Callable[[str], None],
) -> None:
    server = Server(settings, lambda source: ready if source == first else loader.load(source), loader.weigh)
    limits = settings.limits
    config = uvicorn.Config(
        make_app(server),
        log_level="info" if log else "warning",
        access_log=log,
        server_header=False,
        lifespan="on",
        http=patient(limits.patience),  # type: ignore[arg-type]
        ws="none",
        limit_concurrency=limits.queue + limits.sequences + 64,
        timeout_graceful_shutdown=int(settings.grace) + 10,
    )
    web = uvicorn.Server(config)
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def leave(sig: int, frame: FrameType | None) -> None:
        """Say it to the streams first: uvicorn waits for them."""
        loop.call_soon_threadsafe(lambda: stopping.append(loop.create_task(server.stop())))
        if stopping and sig == signal.SIGINT:
            web.force_exit = True
        web.should_exit = True

    web.handle_exit = leave  # type: ignore[method-assign]
    name, number = sock.getsockname()[:2]
    where = f"[{name}]" if ":" in name else name
    tell(f"rwkv: listening on http://{where}:{number}, models: {', '.join(settings.sources)}")
    await web.serve(sockets=[sock])


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OptionError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(1024)
        except OSError:
            sock.close()
            raise
        return sock
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise OptionError(f"--host {host} --port {port}: cannot listen there: {why}") from None
