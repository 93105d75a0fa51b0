"""A hub of the test's own on 127.0.0.1: the part of the protocol that pulling uses, and the ways in which it
can go wrong.
"""

import hashlib
import http.server
import json
import threading
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "beef"


class Hub:
    """What is served, what was asked, and what shall go wrong.

    files    "owner/repo" -> {path: bytes}; .json files are served directly, others as large files behind a
             redirect.
    asked    (method, path, Range) of every request.
    cut      bytes after which the next answers of large files break off, one for each request.
    stall    bytes after which a large file's answer waits for good; `stalled` is set when it does.
    lie      path -> bytes sent in place of the file's own.
    status   path -> status with which it is refused.
    url, elsewhere  of the hub, and of the host (the same, by another name) to which it sends those who want
                    large files.
    trusted  paths that were asked for with a token.
    endless  path -> a piece that is sent again and again, without a length; `sent` counts the bytes.
    encoding path -> what is said to be the encoding of its content.
    points   path -> address that it is redirected to.
    texts    path -> what is answered.           no_ranges  send all where a part was asked for.
    """

    def __init__(self):
        self.files, self.asked, self.cut, self.lie, self.status = {}, [], [], {}, {}
        self.stall, self.stalled, self.over = None, threading.Event(), threading.Event()
        self.url = self.elsewhere = ""
        self.trusted = set()
        self.endless, self.encoding, self.points, self.texts, self.sent = {}, {}, {}, {}, 0
        self.no_ranges = False

    def ranges(self):
        """The Range of every request for a large file's content."""
        return [asked for method, path, asked in self.asked if method == "GET" and path.startswith("/large/")]


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Keep quiet."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path, self.headers.get("Range")))
        if self.headers.get("Authorization"):
            hub.trusted.add(path)
        if path in hub.status:
            return self.send(hub.status[path], b"{}", body)
        if path in hub.texts:
            return self.send(200, hub.texts[path], body)
        if path in hub.points:
            return self.send(302, b"", body, {"Location": hub.points[path]})
        if path in hub.endless and body:
            return self.run_on(hub.endless[path], hub.encoding.get(path))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) in hub.files:
            return self.send(200, json.dumps(self.listing("/".join(parts[2:4]))).encode(), body)
        large = parts[0] == "large"
        repository, name = "/".join(parts[large : large + 2]), "/".join(parts[2 + large if large else 4 :])
        content = hub.files.get(repository, {}).get(name)
        if content is None:
            return self.send(
                404,
                b"",
                body,
                {"X-Error-Code": "EntryNotFound" if repository in hub.files else "RepoNotFound"},
            )
        if large:
            return self.content(hub.lie.get(name, content))
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{git_digest(content)}"'}
        if name.endswith(".json"):
            return self.send(200, content, body, headers)
        headers |= {
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
        }
        self.send(302, b"", body, headers | {"Location": f"{hub.elsewhere}/large/{repository}/{name}"})

    def listing(self, repository):
        files = self.server.hub.files[repository]
        siblings = [
            {"rfilename": name, "size": len(content), "blobId": git_digest(content)}
            for name, content in files.items()
        ]
        return {
            "_id": "1",
            "id": repository,
            "sha": COMMIT,
            "private": False,
            "downloads": 0,
            "tags": [],
            "siblings": siblings,
        }

    def run_on(self, piece, encoding):
        """Send until the other side has enough, 256 MB at most."""
        self.send_response(200)
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while self.server.hub.sent < 256 << 20:
            self.server.hub.sent += len(piece)
            self.wfile.write(piece)

    def content(self, content):
        hub, asked, start = self.server.hub, self.headers.get("Range"), 0
        asked = None if hub.no_ranges else asked
        if asked:
            start = int(asked.removeprefix("bytes=").split("-")[0])
        sent = content[start:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(sent)))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        limit = hub.cut.pop(0) if hub.cut else hub.stall
        self.wfile.write(sent if limit is None else sent[:limit])
        if limit is not None and limit < len(sent):
            self.close_connection = True
            if limit == hub.stall:
                self.wfile.flush()
                hub.stalled.set()
                hub.over.wait(60)

    def send(self, status, content, body, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        """A client that was killed is no news."""


def git_digest(content):
    """SHA-1 as git counts it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving():
    """A hub while it runs."""
    hub = Hub()
    with _Server(("127.0.0.1", 0), _Answers) as server:
        server.hub, port = hub, server.server_address[1]
        hub.url, hub.elsewhere = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            hub.over.set()
            server.shutdown()
            thread.join()
