"""Health and metrics for proxies, clusters and Prometheus. ASGI middleware; no Gradio in here."""

import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from manymask._version import __version__
from manymask.serving.guard import answer
from manymask.serving.request_queue import RequestQueue, Ticket

HEALTH, METRICS = "/healthz", "/metrics"
STUCK = 60.0  # seconds beyond its limit after which a drawing counts as stuck
QUIET = 2.0  # seconds without a request after which the last answers are out
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_OPEN = "/heartbeat/"  # lasts as long as a page is open


class Monitor:
    """What is measured, and how the server is.

    line: of the drawings. longest: seconds that a drawing may take. held: gives the bytes of all files of visitors.
    """

    def __init__(self, line: RequestQueue, longest: float, held: Callable[[], float]) -> None:
        self.line, self.longest = line, longest
        self._active = 0
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("manymask", "The program.", registry=registry).info({"version": __version__})
        Gauge("manymask_drawings", "Drawings that wait or are in progress.", registry=registry).set_function(
            lambda: len(line)
        )
        Gauge("manymask_files_bytes", "Uploads and results on the disk.", registry=registry).set_function(held)
        self._ended = Counter(
            "manymask_drawings_ended", "Drawings and lists by how they ended.", ["outcome"], registry=registry
        )
        self._waited = Histogram(
            "manymask_waiting_seconds", "Of each drawing, in the line.", buckets=_SECONDS, registry=registry
        )
        self._drew = Histogram(
            "manymask_drawing_seconds", "Of each drawing or list, after its turn came.", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._answers = Counter("manymask_http_responses", "Responses by status.", ["status"], registry=registry)
        for outcome in ("answered", "failed", "left", "refused"):
            self._ended.labels(outcome)
        line.ended = self.count

    def count(self, ticket: Ticket | None, outcome: str) -> None:
        """Counts what `RequestQueue.ended` is called with."""
        self._ended.labels(outcome).inc()
        if ticket is not None:
            now = time.monotonic()
            first = ticket.first or now
            self._waited.observe(first - ticket.came)
            self._drew.observe(now - first)

    def health(self) -> tuple[int, str]:
        """Status and text: 503 while the server closes, and if a drawing does not end."""
        if self.line.closed:
            return 503, "closing"
        busy = self.line.busy()
        if busy > self.longest + STUCK:
            return 503, f"a drawing has not ended for {busy:.0f} seconds"
        return 200, "ok"

    def metrics(self) -> str:
        """In the text format of Prometheus."""
        return generate_latest(self.registry).decode()

    def begin(self, step: int = 1) -> None:
        """Counts a request in progress; with -1 its end."""
        with self._lock:
            self._active += step
            self._last = time.monotonic()

    def answered(self, status: int) -> None:
        """Counts a response."""
        self._answers.labels(str(status)).inc()

    def drain(self, patience: float) -> None:
        """Returns when no request has come or was in progress for a moment; at the latest after `patience` seconds."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            with self._lock:
                if not self._active and time.monotonic() - self._last > QUIET:
                    return
            time.sleep(0.05)


def merged(texts: Mapping[str, str]) -> str:
    """The metrics of several servers as those of one, each with the label `replica`. texts: by the name of the server."""
    families = dict[str, Metric]()
    for replica, text in texts.items():
        for family in text_string_to_metric_families(text):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                whole.add_sample(sample.name, {**sample.labels, "replica": replica}, sample.value)
    registry = CollectorRegistry()
    registry.register(_Collected(list(families.values())))
    return generate_latest(registry).decode()


class _Collected(Collector):
    """Metrics that were read elsewhere."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterator[Metric]:
        yield from self.families


class Monitoring:
    """Answers `/healthz` and `/metrics`; counts all other requests.

    metrics: gives the text in place of the monitor's own, if this server is one of several.
    """

    def __init__(self, app: Any, monitor: Monitor, metrics: Callable[[], Awaitable[str]] | None = None) -> None:
        self.app, self.monitor, self.metrics = app, monitor, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] in (HEALTH, METRICS) and scope["method"] in ("GET", "HEAD"):
            if scope["path"] == HEALTH:
                await answer(send, *self.monitor.health())
            else:
                await answer(send, 200, await self.metrics() if self.metrics else self.monitor.metrics())
            return

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.monitor.answered(message["status"])
            await send(message)

        counted = _OPEN not in scope["path"]
        if counted:
            self.monitor.begin()
        try:
            await self.app(scope, receive, watched)
        finally:
            if counted:
                self.monitor.begin(-1)
