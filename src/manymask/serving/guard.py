"""What every request passes: who may ask, what browsers are told, how it ends. ASGI middleware; no Gradio in here."""

import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

CLIENT = b"x-client"  # names a client, who stays with one replica
LOCAL = ("localhost", "127.0.0.1", "::1")
# Gradio's page runs inline scripts and compiles templates; nothing comes from elsewhere, and nobody frames the page
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def host_of(address: str) -> str:
    """`example.org` of `example.org:80`, `::1` of `[::1]:80`."""
    return (urlsplit(f"//{address}").hostname or "").rstrip(".")


def traceback_place(trace: TracebackType | None) -> str:
    """File name and line where an exception was raised."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"


def log_error(error: BaseException) -> None:
    """For the operator: kind and place alone, since the text might name a file, and so a patient."""
    print(f"manymask: {type(error).__name__} at {traceback_place(error.__traceback__)}", file=sys.stderr, flush=True)


async def answer(send: Any, status: int, text: str) -> None:
    """A whole response of one line."""
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class RequestGuard:
    """Refuses other hosts and foreign pages, adds the headers, and keeps stack traces out of the log.

    hosts: names, beside this computer's own, that the page is served under.
    """

    def __init__(self, app: Any, hosts: Collection[str]) -> None:
        self.app = app
        self.hosts = {host_of(host) if ":" not in host.strip("[]") else host.strip("[]") for host in hosts} | {*LOCAL}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        started = False

        async def guarded(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                known = {name for name, _ in HEADERS}
                kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in known]
                message = {**message, "headers": [*kept, *HEADERS]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if refusal:
            return await answer(guarded, *refusal)
        try:
            await self.app(scope, receive, guarded)
        except Exception as error:
            log_error(error)
            if not started and scope["type"] == "http":
                await answer(guarded, 500, "something unforeseen went wrong")

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        named = headers.get(b"host", b"").decode("latin-1")
        arrived = scope["server"][0] if scope.get("server") else ""
        if host_of(named) not in self.hosts | {arrived}:
            return 421, f"this page is not served as {host_of(named)[:80]!r}; the operator may add --allow-host"
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        origin = headers.get(b"origin", b"").decode("latin-1")
        foreign = headers.get(b"sec-fetch-site", b"") in (b"cross-site", b"same-site")
        if foreign or (origin and urlsplit(origin).netloc.lower() != named.lower()):
            return 403, "requests from other web pages are refused"
        return None


class Departures:
    """Says when a program that draws through `/call/NAME` begins and stops to listen for its answer.

    came, left: called with the id of its event.
    """

    ADDRESS = re.compile(r".*/call/(?:v2/)?\w+/([0-9a-f]{32})/?$")

    def __init__(self, app: Any, came: Callable[[str], None], left: Callable[[str], None]) -> None:
        self.app, self.came, self.left = app, came, left

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        found = self.ADDRESS.match(scope.get("path", "")) if scope.get("method") == "GET" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        self.came(found[1])
        try:
            await self.app(scope, receive, send)
        finally:
            self.left(found[1])


class NamedVisitor:
    """Middleware of the proxies: who names no client is the client of this address."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope.get("client") and all(name != CLIENT for name, _ in scope["headers"]):
            scope = {**scope, "headers": [*scope["headers"], (CLIENT, scope["client"][0].encode())]}
        await self.app(scope, receive, send)


def proxy_middleware() -> list[Any]:
    """What the proxies of Ray Serve put before each request."""
    from starlette.middleware import Middleware

    return [Middleware(NamedVisitor)]
