"""Where Gradio must behave otherwise and offers no setting for it. Each patch is held by a test of its own."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from manymask.serving.guard import log_error

NOT_UNDERSTOOD = (
    "the request is not understood: upload each file first (`handle_file` of gradio_client does), "
    "pass what the upload returned, and see the page's documentation for the rest"
)


def apply() -> None:
    """All of them; before the page is built."""
    fetch_nothing()
    log_no_text()
    keep_no_broken_uploads()
    name_no_other()


def fetch_nothing() -> None:
    """Gradio would fetch a file that a caller names by an address; here one uploads the file itself."""
    import gradio as gr
    from gradio import processing_utils

    async def refuse(*_: Any, **__: Any) -> str:
        raise gr.Error("upload the file itself, not its address", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse


def log_no_text() -> None:
    """Gradio would print a stack trace, file names in it, for what a caller got wrong, and answer with nothing."""
    from gradio import queueing

    def print_kind(*_: Any, **__: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None:
            log_error(error)

    original = queueing.error_payload

    def payload(error: BaseException | None, show_error: bool) -> dict[str, Any]:
        content = original(error, show_error)
        return {**content, "error": NOT_UNDERSTOOD} if content.get("error") is None else content

    queueing.traceback = SimpleNamespace(print_exc=print_kind)
    queueing.error_payload = payload


def keep_no_broken_uploads() -> None:
    """Gradio would keep what came of an upload that broke off or did not fit."""
    from gradio.route_utils import GradioMultiPartParser

    original = GradioMultiPartParser.parse

    async def parse(self: Any) -> Any:
        try:
            return await original(self)
        except BaseException:
            for file in self._files_to_close_on_error:
                Path(file.name).unlink(missing_ok=True)
                file.close()
            raise

    GradioMultiPartParser.parse = parse


def name_no_other() -> None:
    """Gradio would introduce the page to other sites as a demo of its own, with a picture from its own server."""
    from gradio import routes
    from jinja2 import FunctionLoader

    environment = routes.templates.env
    original = environment.loader

    def load(name: str) -> str:
        source: str = original.get_source(environment, name)[0]
        return re.sub(r'<meta\s+(?:property="og:|name="twitter:)[^>]*>', "", source)

    environment.loader = FunctionLoader(load)
