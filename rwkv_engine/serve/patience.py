"""`patient`: uvicorn's protocol for a connection, and a bound on the time in which a request has to begin."""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

LATE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def patient(seconds: float) -> Callable[..., asyncio.Protocol]:
    """A factory of protocols for `uvicorn.Config(http=...)`.

    seconds  from a connection's first moment, or from the first byte behind an answer, until the headers of a
             request are whole. Bytes of a body that nobody reads any more are no request. Then it is closed.
    """

    def make(**given: Any) -> asyncio.Protocol:
        return Patient(AutoHTTPProtocol(**given), seconds)

    return make


class Patient(asyncio.Protocol):
    """Hands everything on to a protocol of uvicorn's, and looks whether a request has begun."""

    def __init__(self, inner: Any, seconds: float) -> None:
        self._inner, self._seconds = inner, seconds
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = transport
        self._inner.connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes have come: the clock runs until they are a request."""
        self._inner.data_received(data)
        self._watch()

    def eof_received(self) -> None:
        """The client sends no more."""
        self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        self._inner.resume_writing()

    def _watch(self) -> None:
        if self._answering():
            self._stop()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._late)

    def _answering(self) -> bool:
        """Whether a request is under way: its headers are there, its answer is not over."""
        cycle = self._inner.cycle
        return cycle is not None and not cycle.response_complete

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._answering() or self._transport.is_closing():
            return
        if self._inner.cycle is None:
            self._transport.write(LATE)
        self._transport.close()
