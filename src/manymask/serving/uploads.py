"""What visitors leave on the disk: how much may come, what goes when. No Gradio in here."""

import errno
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from manymask.serving.guard import answer

KEPT = 3600.0  # seconds that an upload lies at most
RESULT_KEPT = 300.0  # the same for a result, and for what a program uploaded and has used
FULL = (errno.ENOSPC, errno.EDQUOT)


class UploadStore:
    """The server's temporary folder.

    most: bytes of all files together; each: files of one client.
    """

    def __init__(self, folder: Path, most: int, each: int) -> None:
        self.folder, self.most, self.each = folder, most, each
        self._owners: dict[Path, str] = {}
        self._lock = threading.Lock()

    def _paths(self) -> Iterator[Path]:
        """All that lies in the folder, the deepest first. A folder that goes meanwhile is left out, where `rglob` raises."""
        for place, folders, files in os.walk(self.folder, topdown=False):
            yield from (Path(place, name) for name in (*files, *folders))

    def held(self) -> int:
        """Bytes on the disk."""
        total = 0
        for path in self._paths():
            with suppress(OSError):
                total += path.stat().st_size if path.is_file() else 0
        return total

    def count(self, client: str) -> int:
        """Files on the disk that a client has uploaded."""
        with self._lock:
            self._owners = {path: owner for path, owner in self._owners.items() if path.exists()}
            return sum(owner == client for owner in self._owners.values())

    def record(self, paths: Iterable[Path], client: str) -> None:
        """Remembers whose files these are."""
        with self._lock:
            self._owners.update({path: client for path in paths if path.is_relative_to(self.folder)})

    def refusal(self, client: str, coming: int) -> tuple[int, str] | None:
        """Status and sentence for a client who may not upload `coming` bytes now."""
        if self.count(client) >= self.each:
            return 429, f"you have {self.each} files on this server, and that is the most: try again in some minutes"
        if self.held() + coming > self.most:
            return 507, "the server has no room for more uploads: try again in some minutes"
        return None

    def sweep(self, now: float) -> None:
        """Removes what has lain too long."""
        for path in self._paths():
            with suppress(OSError):
                if path.is_dir():
                    if now - path.stat().st_mtime > RESULT_KEPT:
                        path.rmdir()  # only if it is empty
                elif now - path.stat().st_mtime > (RESULT_KEPT if path.suffix == ".zip" else KEPT):
                    path.unlink()

    def keep_sweeping(self) -> None:
        """Sweeps every minute for as long as the folder is there."""
        while self.folder.exists():
            self.sweep(time.time())
            time.sleep(60)


class Uploads:
    """Ends a request as soon as more than `limit` bytes of it are announced or have come; refuses uploads for which the
    store has no room; a broken-off or failed one is a sentence or silence. ASGI middleware."""

    def __init__(self, app: Any, limit: int, store: UploadStore) -> None:
        self.app, self.limit, self.store = app, limit, store

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client = scope["client"][0] if scope.get("client") else ""
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        size = int(announced) if announced.isdigit() else self.limit + 1
        upload = scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/upload")
        refusal = (413, self._too_much()) if size > self.limit else None
        if upload and refusal is None:
            refusal = self.store.refusal(client, size)
        if refusal:
            return await answer(send, *refusal)
        await self._pass_on(scope, receive, self._recorded(send, client) if upload else send)

    async def _pass_on(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.requests import ClientDisconnect

        come = 0

        async def counted() -> Any:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            return message if come <= self.limit else {"type": "http.disconnect"}

        try:
            await self.app(scope, counted, send)
        except ClientDisconnect:  # the visitor has gone, or was sent away
            if come > self.limit:
                await answer(send, 413, self._too_much())
        except OSError as error:
            if error.errno not in FULL:
                raise
            await answer(send, 507, "the server's disk is full: nothing was kept; try again in some minutes")

    def _too_much(self) -> str:
        return f"at most {self.limit // 1_000_000} MB at once"

    def _recorded(self, send: Any, client: str) -> Any:
        """`send` that remembers the files of a successful upload, whose names are its answer."""
        body = b""

        async def watched(message: Any) -> None:
            nonlocal body
            body += message.get("body", b"")
            if message["type"] == "http.response.body" and not message.get("more_body"):
                with suppress(ValueError, TypeError):
                    self.store.record([Path(name) for name in json.loads(body)], client)
            await send(message)

        return watched
