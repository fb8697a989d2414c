"""`manymask serve`: loads the models, keeps the visitors' files in a folder that goes with the server."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manymask.errors import ConfigError, MissingExtraError
from manymask.inference.segmenter import Segmenter
from manymask.serving.service import Limits
from manymask.serving.session import SessionManager
from manymask.serving.uploads import UploadStore

DRAIN = 10.0  # seconds at most in which the last answers go out
SESSIONS = 20  # visits whose state is kept


def serve(
    models: Sequence[Path | str], host: str, port: int, limits: Limits, hosts: Sequence[str] = (), grace: float = 20
) -> None:
    """Serves until interrupted; what visitors left is removed at the end. `ConfigError` if Gradio is not installed, or
    the place is taken. hosts: further names that the page is served under. grace: seconds that the drawing in progress
    may take after the first SIGTERM or Ctrl-C; a second one ends it."""
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port must lie in 1 … 65535, not {port}")
    end_on_signals(lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="manymask-") as work:
        site = open_site(models, limits, Path(work).resolve())
        sessions = site.sessions
        ended = threading.Event()
        try:
            _launch(site, host, port, hosts)
        except OSError:
            raise taken(host, port) from None
        end_on_signals(lambda *_: ended.set())
        print(f"manymask: http://{host}:{port} ({', '.join(sessions.segmenters)}); end with Ctrl+C", flush=True)
        ended.wait()
        end_on_signals(lambda *_: threading.Thread(target=sessions.line.end_all).start())
        idle = sessions.line.close(grace)
        site.monitor.drain(DRAIN)
        site.page.close(verbose=False)
    if not idle:
        os._exit(0)  # a thread that is deep in a library would end the interpreter with an abort


@dataclass(frozen=True)
class Site:
    """A page that is not served yet, and what belongs to it."""

    page: Any
    sessions: SessionManager
    store: UploadStore
    monitor: Any


def open_site(models: Sequence[Path | str], limits: Limits, folder: Path) -> Site:
    """Loads the models and builds the page. folder: for the visitors' files. `MissingExtraError` without Gradio."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # before Gradio is imported
    try:
        from manymask.serving import app, monitoring, patches
    except ImportError:
        raise MissingExtraError(
            "the page needs Gradio: pip install 'manymask[app]'", extra="app", package="gradio"
        ) from None
    patches.apply()
    sessions = SessionManager(load_segmenters(models), limits, folder)
    store = UploadStore(folder, limits.kept * 1_000_000, limits.kept_files)
    monitor = monitoring.Monitor(sessions.line, limits.seconds, store.held)
    page = app.build(sessions)
    # many may wait for their turn; `RequestQueue` says who draws, this queue only bounds what comes in one rush
    page.queue(max_size=4 * limits.waiting + 20, default_concurrency_limit=1, api_open=False)
    threading.Thread(target=store.keep_sweeping, daemon=True).start()
    return Site(page, sessions, store, monitor)


def taken(host: str, port: int) -> ConfigError:
    """What to raise if the place is another program's."""
    return ConfigError(f"{host}:{port} cannot be served: it is taken, choose another --port")


def end_on_signals(handler: Any) -> None:
    """What SIGTERM and Ctrl-C do from now on."""
    with suppress(ValueError):  # only the main thread may
        for kind in (signal.SIGTERM, signal.SIGINT):
            signal.signal(kind, handler)


def load_segmenters(models: Sequence[Path | str]) -> dict[str, Segmenter]:
    """The models, by their names or those of their folders."""
    loaded = dict[str, Segmenter]()
    for model in models:
        name = Path(model).resolve().name
        name = next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(models) + 2))) if n not in loaded)
        loaded[name] = Segmenter.from_pretrained(model)
    return loaded


def _launch(site: Site, host: str, port: int, hosts: Sequence[str]) -> None:
    limits = site.sessions.limits
    site.page.launch(
        server_name=host, server_port=port, share=False, quiet=True, inbrowser=False, state_session_capacity=SESSIONS,
        strict_cors=True, prevent_thread_lock=True, max_threads=threads_of(limits),
        app_kwargs={"middleware": guards(site, [host, *hosts])}, **look(limits),
    )  # fmt: skip


def threads_of(limits: Limits) -> int:
    """Threads for events: those that wait in line hold one each."""
    return limits.waiting + 24


def application(site: Site, hosts: Sequence[str], metrics: Callable[[], Awaitable[str]] | None = None) -> Any:
    """The page as an ASGI application, for servers of others. metrics: as of `Monitoring`."""
    import gradio as gr
    from fastapi import FastAPI

    limits = site.sessions.limits
    site.page.max_threads = site.page._queue.max_thread_count = threads_of(limits)
    site.page.state_session_capacity = SESSIONS
    outer = FastAPI(openapi_url=None, middleware=guards(site, hosts, metrics))
    return gr.mount_gradio_app(outer, site.page, "/", **look(limits))


def guards(site: Site, hosts: Sequence[str], metrics: Callable[[], Awaitable[str]] | None = None) -> list[Any]:
    """What every request passes, the first first."""
    from starlette.middleware import Middleware

    from manymask.serving.guard import Departures, RequestGuard
    from manymask.serving.monitoring import Monitoring
    from manymask.serving.uploads import Uploads

    line, limits = site.sessions.line, site.sessions.limits
    return [
        Middleware(RequestGuard, hosts=hosts),
        Middleware(Monitoring, monitor=site.monitor, metrics=metrics),
        Middleware(Uploads, limit=limits.at_once * 1_000_000, store=site.store),
        Middleware(Departures, came=line.listen, left=line.leave),
    ]


def look(limits: Limits) -> dict[str, Any]:
    """Settings of Gradio: nothing shared, nothing measured, no file but the visitor's own; fonts of the visitor's system."""
    import gradio as gr

    from manymask.serving.app import DESCRIPTION, STYLES, path_of, text_of

    font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    theme = gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", radius_size="md", font=font, font_mono=["monospace"]
    ).set(body_text_color_subdued="#64748b", button_primary_background_fill="#0072b2",
          button_primary_background_fill_hover="#005a8e", button_primary_background_fill_dark="#0072b2",
          button_primary_background_fill_hover_dark="#005a8e", slider_color="#0072b2")  # fmt: skip
    return {
        "show_error": False, "allowed_paths": [], "max_file_size": f"{limits.upload}mb", "enable_monitoring": False,
        "ssr_mode": False, "mcp_server": False, "footer_links": ["api"], "theme": theme,
        "favicon_path": path_of("favicon.svg"),
        "head": f'<meta name="description" content="{DESCRIPTION}"><style>{text_of(*STYLES)}</style>',
    }  # fmt: skip
