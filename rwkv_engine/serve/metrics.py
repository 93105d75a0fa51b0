"""`Metrics`: what Prometheus may read at /metrics."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server, and four numbers that are read when somebody asks.

    running  texts under way.                 waiting  requests whose text has not begun.
    loaded   models in memory.                kept     bytes of kept states in memory.
    """

    __slots__ = ("_registry", "first", "prompt", "requests", "seconds", "tokens")

    def __init__(
        self,
        running: Callable[[], int],
        waiting: Callable[[], int],
        loaded: Callable[[], int],
        kept: Callable[[], int],
    ) -> None:
        r = self._registry = CollectorRegistry()
        self.requests = Counter(
            "rwkv_requests", "Answers, by path and status", ["path", "status"], registry=r
        )
        self.prompt = Counter("rwkv_prompt_tokens", "Tokens of prompts", registry=r)
        self.tokens = Counter("rwkv_tokens", "Tokens written", registry=r)
        self.first = Histogram(
            "rwkv_first_token_seconds", "Until the first token", registry=r, buckets=_SECONDS
        )
        self.seconds = Histogram("rwkv_request_seconds", "Until the last token", registry=r, buckets=_SECONDS)
        gauges = (
            ("rwkv_running", "Texts under way", running),
            ("rwkv_waiting", "Requests whose text has not begun", waiting),
            ("rwkv_models_loaded", "Models in memory", loaded),
            ("rwkv_states_bytes", "Bytes of kept states in memory", kept),
        )
        for name, help, read in gauges:
            Gauge(name, help, registry=r).set_function(read)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
