"""Load on a server that speaks OpenAI's API: tokens per second of all clients together, and how long each waits.

    python benchmarks/server.py http://127.0.0.1:8080 [--clients 1,8,32] [--tokens 64] [--words 80]
    python benchmarks/server.py http://127.0.0.1:8080 --clients 64 --seconds 600 [--pid PID]

Each client asks for a completion of a prompt of its own, streamed, at temperature 0. With --seconds, clients ask
their questions again and again, and every answer must be the first one, letter for letter; with the server's
process id, its memory is read meanwhile (Linux). Bound: what `rwkv_engine.Batch` writes without HTTP. The last line
is JSON.
"""

import argparse
import http.client
import json
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

WORDS = "the river a small boat went under bridge and his friend called out to them from garden".split()


@dataclass
class Client:
    """One client: its prompt, and what it saw."""

    address: str
    model: str
    number: int
    words: int
    tokens: int
    texts: set[str] = field(default_factory=set)
    firsts: list[float] = field(default_factory=list)
    written: int = 0
    errors: list[str] = field(default_factory=list)

    def ask(self) -> None:
        """One completion."""
        prompt = f"Client {self.number}: " + " ".join(
            WORDS[(self.number * 7 + n * (n + 3)) % len(WORDS)] for n in range(self.words)
        )
        asks = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": self.tokens,
            "temperature": 0,
            "stream": True,
        }
        start, text, chunks, reason = time.perf_counter(), "", 0, None
        try:
            connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=900)
            connection.request(
                "POST", "/v1/completions", json.dumps(asks), {"Content-Type": "application/json"}
            )
            reply = connection.getresponse()
            if reply.status != 200:
                raise OSError(f"{reply.status} {reply.read()[:200]!r}")
            for line in reply:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise OSError(str(chunk["error"]))
                for choice in chunk["choices"]:
                    if choice["text"] and not chunks:
                        self.firsts.append(time.perf_counter() - start)
                    chunks += bool(choice["text"])
                    text += choice["text"]
                    reason = choice["finish_reason"] or reason
            connection.close()
        except (OSError, ValueError, KeyError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            return
        if reason is None:
            self.errors.append("the stream ended without a reason")
        self.written += self.tokens if reason == "length" else chunks
        self.texts.add(text)

    def ask_until(self, end: float) -> int:
        """Completions until then; how many."""
        count = 0
        while time.perf_counter() < end:
            self.ask()
            count += 1
        return count


def first_model(address: str) -> str:
    """The name of the first model that the server has."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request("GET", "/v1/models")
    name: str = json.loads(connection.getresponse().read())["data"][0]["id"]
    return name


def together(clients: list[Client], seconds: float) -> tuple[float, int]:
    """All clients at once, once each or for so many seconds: (seconds it took, completions)."""
    counts = [0] * len(clients)

    def run(place: int) -> None:
        if seconds:
            counts[place] = clients[place].ask_until(time.perf_counter() + seconds)
        else:
            clients[place].ask()
            counts[place] = 1

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(clients))]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start, sum(counts)


def watched(pid: int, sizes: list[int], done: threading.Event) -> None:
    """The process's memory in bytes, every second."""
    while not done.wait(1):
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        sizes.append(int(pages) * 4096)


def main() -> None:
    """Print a line for each number of clients, and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--words", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--pid", type=int)
    options = parser.parse_args()
    rows, model = [], first_model(options.address)
    Client(options.address, model, 0, 3, 2).ask()  # whatever has to be loaded or compiled
    for count in map(int, options.clients.split(",")):
        clients = [Client(options.address, model, n, options.words, options.tokens) for n in range(count)]
        sizes: list[int] = []
        done = threading.Event()
        watcher = threading.Thread(target=watched, args=(options.pid, sizes, done))
        if options.pid:
            watcher.start()
        took, completions = together(clients, options.seconds)
        done.set()
        firsts = sorted(first for client in clients for first in client.firsts) or [0.0]
        errors = [error for client in clients for error in client.errors]
        rows.append(
            {
                "clients": count,
                "completions": completions,
                "tokens_per_second": sum(client.written for client in clients) / took,
                "first_token_p50_s": statistics.median(firsts),
                "first_token_p95_s": firsts[min(len(firsts) - 1, int(len(firsts) * 0.95))],
                "errors": len(errors),
                "clients_with_another_text": sum(len(client.texts) > 1 for client in clients),
                "memory_mb": [round(min(sizes[5:]) / 1e6, 1), round(max(sizes[5:]) / 1e6, 1)]
                if sizes[5:]
                else None,
            }
        )
        print(
            "  ".join(
                f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
                for name, value in rows[-1].items()
            ),
            flush=True,
        )
        for error in errors[:5]:
            print(error)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
