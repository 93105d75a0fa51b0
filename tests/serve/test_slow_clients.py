"""Clients that send too slowly, or without an end: each connection ends by the limits."""

import contextlib
import socket
import time
from urllib.parse import urlsplit

import pytest

from rwkv_engine.serve.planning import Limits

HEAD = b"POST /v1/tokenize HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
CHUNKS = b"transfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module", params=["h11", "httptools"])
def impatient(request, embedded, serve):
    """The address of a server that waits 0.3 seconds, and reads 2,000 bytes."""
    from rwkv_engine.serve import patience

    if request.param == "httptools":
        pytest.importorskip("httptools")
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as protocol
    else:
        from uvicorn.protocols.http.h11_impl import H11Protocol as protocol
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience, "AutoHTTPProtocol", protocol)
        with serve(embedded, limits=Limits(body=2000, patience=0.3)) as (_, address):
            yield urlsplit(address)


def sent(address, first, more, seconds=4.0):
    """(what came back, seconds until the connection ended) of a client that goes on with `more`."""
    begun, got = time.monotonic(), b""
    with socket.create_connection((address.hostname, address.port)) as sock:
        sock.settimeout(0.05)
        sock.sendall(first)
        while time.monotonic() - begun < seconds:
            try:
                if more:
                    sock.sendall(more)
                part = sock.recv(65536)
                if not part:
                    return got, time.monotonic() - begun
                got += part
            except TimeoutError:
                pass
            except OSError:
                with contextlib.suppress(OSError):
                    got += sock.recv(65536)
                return got, time.monotonic() - begun
    raise AssertionError(f"the connection is still there after {seconds} s; it said {got[:200]!r}")


@pytest.mark.parametrize(
    "first, more",
    [(b"", b""), (HEAD, b""), (HEAD, b"x: y\r\n"), (b"", b"G"), (b"\r\n", b"\r\n")],
    ids=["nothing", "no end of headers", "a header a time", "a letter a time", "empty lines"],
)
def test_headers_that_do_not_come_in_time_end_the_connection(impatient, first, more):
    got, seconds = sent(impatient, first, more)
    assert seconds < 2 and (not got or got.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 ")))


@pytest.mark.parametrize(
    "first, more, status",
    [
        (HEAD + b"content-length: 1000\r\n\r\n", b"x", 408),
        (HEAD + CHUNKS, b"1\r\nx\r\n", 408),
        (HEAD + b"content-length: 99999999999\r\n\r\n", b"x", 413),
        (HEAD + CHUNKS, b"3e8\r\n" + b"x" * 1000 + b"\r\n", 413),
        (HEAD.replace(b"POST", b"DELETE") + CHUNKS, b"1\r\nx\r\n", 405),
        (HEAD.replace(b"/v1/tokenize", b"/nothing") + CHUNKS, b"1\r\nx\r\n", 404),
        (HEAD.replace(b"POST /v1/tokenize", b"GET /health") + CHUNKS, b"1\r\nx\r\n", 200),
        (HEAD.replace(b"127.0.0.1", b"evil.example") + CHUNKS, b"1\r\nx\r\n", 403),
    ],
    ids=["slow", "slow chunks", "long", "long chunks", "no method", "no path", "not read", "no host"],
)
def test_a_body_without_an_end_ends_by_the_limits(impatient, first, more, status):
    got, seconds = sent(impatient, first, more)
    assert seconds < 2 and got.startswith(f"HTTP/1.1 {status} ".encode())


def test_a_second_request_on_a_connection_has_its_own_time(impatient):
    whole = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    with socket.create_connection((impatient.hostname, impatient.port), timeout=5) as sock:
        for _ in range(3):
            time.sleep(0.2)
            sock.sendall(whole)
            got = b""
            while not got.endswith(b"}"):
                got += sock.recv(65536)
            assert got.startswith(b"HTTP/1.1 200 ")
        begun = time.monotonic()
        sock.sendall(whole[:20])
        assert sock.recv(65536) == b"" and 0.2 < time.monotonic() - begun < 2


def test_a_socket_for_messages_is_not_opened(impatient):
    asks = (
        HEAD.replace(b"POST /v1/tokenize", b"GET /health") + b"upgrade: websocket\r\nconnection: upgrade\r\n"
    )
    asks += b"sec-websocket-key: eA==\r\nsec-websocket-version: 13\r\n\r\n"
    with socket.create_connection((impatient.hostname, impatient.port), timeout=5) as sock:
        sock.sendall(asks)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
