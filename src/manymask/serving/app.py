"""The page in the browser, and the same for programs: the sessions joined to components by Gradio (extra `app`)."""

import itertools
import re
from collections import deque
from contextlib import suppress
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from manymask.errors import InputError
from manymask.io.image import Picture
from manymask.serving import service
from manymask.serving.listing import most_doubtful_first
from manymask.serving.request_queue import LeftError, StoppedError
from manymask.serving.service import OpenedInput, SegmentRequest
from manymask.serving.session import (
    OWN_SAMPLER,
    SessionManager,
    list_of,
    sampler_labels,
    segment_request_of,
    thumbnails,
    user_facing_errors,
)
from manymask.serving.uploads import KEPT

HEAD = """<header class="mm-head"><h1>manymask</h1><p>Many plausible outlines of one lesion: see where experts might
differ.</p><p class="mm-warning"><b>Research use only.</b> Not for diagnosis or treatment.</p></header>"""
FETCH = """(file) => { const link = document.createElement("a"); link.href = file.url;
link.download = file.orig_name || "manymask.zip"; document.body.append(link); link.click(); link.remove(); }"""
ENDED = "() => { window.dispatchEvent(new Event('manymask-ended')); }"
LIST_ENDED = ENDED.replace("ended", "list-ended")


EVENT = re.compile("[0-9a-f]{32}")  # the visit of a caller of `/call/segment` is the event itself


def client_of(request: gr.Request) -> str:
    """The address that a request comes from."""
    return request.client.host if request.client else ""


def place_label(found: OpenedInput | Picture, number: int) -> str:
    """`slice 3 of 20`; nothing where there is one picture alone."""
    if isinstance(found, Picture) or len(found) == 1:
        return ""
    return f"{found.kind.lower()} {number} of {len(found)}"


def text_of(name: str) -> str:
    """A file of the page's own."""
    return (files("manymask.serving") / "static" / name).read_text(encoding="utf-8")


class Events:
    """What happens on the page. Every method answers with the values of the components that it is wired to.

    Every scene carries a stamp, and so does a finished drawing: what comes late never stands for something newer.
    """

    def __init__(self, sessions: SessionManager) -> None:
        self.sessions = sessions
        self.stamps = itertools.count(1)

    def _show(self, found: OpenedInput | Picture, place: int, window: str, name: str) -> Any:
        """The image alone; what was drawn before is gone."""
        model = self.sessions.segmenter(name)
        scene = service.preview(model, self.sessions.shown(found, place, window))
        count, kind = (1, "Image") if isinstance(found, Picture) else (len(found), found.kind)
        scene.place, scene.number = place_label(found, place), place
        scene.warnings = (*self.sessions.notices(found), *scene.warnings)
        slider = gr.update(maximum=max(2, count), value=place, visible=count > 1, label=kind)
        return found, scene.value(stamp=next(self.stamps)), None, slider

    def _offer(self, found: OpenedInput | Picture | None, name: str, visit: str | None) -> dict[str, Any]:
        """The list in place of an earlier one, which ends: empty, with how many pictures there are to be listed."""
        self.sessions.line.leave(list_of(visit))
        stamp = next(self.stamps)
        if not isinstance(found, OpenedInput) or self.sessions.segmenter(name).recipe.crop:
            return {"stamp": stamp, "images": 0}
        return {"stamp": stamp, "images": len(found), "kind": found.kind}

    def drop(self, paths: list[str] | None, window: str, name: str, request: gr.Request) -> Any:
        """New files in place of what was there."""
        with user_facing_errors(self.sessions.folder):
            mine = [Path(path) for path in paths or []]
            self.sessions.line.leave(request.session_hash or "")
            self.sessions.remember(request.session_hash, mine)
            found = service.open_files(mine, self.sessions.limits)
            first = 1 if found.kind == "Image" else (len(found) + 1) // 2
            offer = self._offer(found, name, request.session_hash)
            return (*self._show(found, first, window, name), self._regions(name), offer)

    def example(self, window: str, name: str, event: gr.EventData, request: gr.Request) -> Any:
        with user_facing_errors(self.sessions.folder):
            self.sessions.line.leave(request.session_hash or "")
            _, picture = self.sessions.examples[int(event.number) % len(self.sessions.examples)]
            offer = self._offer(picture, name, request.session_hash)
            return (*self._show(picture, 1, window, name), self._regions(name), offer)

    def change(
        self, found: OpenedInput | Picture | None, place: float, window: str, name: str, request: gr.Request
    ) -> Any:
        """Another window or model: what is listed was drawn with the old one."""
        with user_facing_errors(self.sessions.folder):
            offer = self._offer(found, name, request.session_hash)
        return (*self.turn(found, place, window, name, request), offer)

    def turn(
        self, found: OpenedInput | Picture | None, place: float, window: str, name: str, request: gr.Request
    ) -> Any:
        """Another slice."""
        with user_facing_errors(self.sessions.folder):
            self.sessions.line.leave(request.session_hash or "")
            if found is None:
                return gr.skip(), gr.skip(), gr.skip(), gr.skip(), self._regions(name)
            return (*self._show(found, int(place), window, name), self._regions(name))

    def choose(self, found: Any, window: str, name: str, request: gr.Request, event: gr.EventData) -> Any:
        """The picture of a row of the list."""
        return self.turn(found, event.number, window, name, request)

    def remove(self, name: str, request: gr.Request) -> Any:
        """The image goes, from the server too; the page is as it was at first."""
        self.sessions.forget(request.session_hash)
        offer = self._offer(None, name, request.session_hash)
        return None, {"stamp": next(self.stamps)}, None, gr.update(visible=False), self._regions(name), offer

    def _regions(self, name: str) -> Any:
        """The box of regions: empty, and only there for a model that has regions."""
        return gr.update(value="", visible=self.sessions.segmenter(name).recipe.crop)

    def pick(self, event: gr.EventData) -> str:
        """The regions as they are marked in the browser."""
        return str(event.regions)[:200]

    def draw(self, found: Any, place: float, window: str, name: str, samples: Any, seed: Any, sampler: Any, steps: Any,
             regions: Any, request: gr.Request) -> Any:  # fmt: skip
        """The masks as they come."""
        with user_facing_errors(self.sessions.folder):
            if found is None:
                raise InputError("choose an image first: drop one, or pick an example")
            order = segment_request_of(self.sessions.limits, samples, seed, sampler, steps, regions)
            yield from self._drawn(found, int(place), window, name, order, request)

    def draw_at_once(self, found: Any, place: float, window: str, name: str, samples: Any, seed: Any, sampler: Any,
                     steps: Any, regions: Any, request: gr.Request) -> Any:  # fmt: skip
        """The same without a click, unless the model must first be shown where to look."""
        recipe = self.sessions.segmenter(name).recipe
        if found is not None and not recipe.crop:
            yield from self.draw(found, place, window, name, samples, seed, sampler, steps, regions, request)

    def _drawn(self, found: Any, place: int, window: str, name: str, order: SegmentRequest, request: gr.Request) -> Any:
        visit, stamp = request.session_hash or "", next(self.stamps)
        self.sessions.line.leave(visit)
        with suppress(LeftError), self.sessions.line.place(visit, client_of(request)) as ticket:
            told = 0
            try:
                while ahead := ticket.ahead(1.0 if told else 0.0):
                    ticket.check()
                    if ahead != told:
                        told = ahead
                        yield {"stamp": stamp, "waiting": ahead}, gr.skip()
                for scene, share, done in self.sessions.draw(found, place, window, name, order, ticket.check):
                    if done is not None:
                        ticket.check_left()
                    scene.place, scene.number = place_label(found, place), place
                    yield scene.value(share, stamp), done and (stamp, done)
            except StoppedError:
                yield {"stamp": stamp, "waiting": 0}, gr.skip()

    def stop(self, request: gr.Request) -> None:
        self.sessions.line.stop(request.session_hash or "")

    def draw_all(self, found: Any, window: str, name: str, samples: Any, seed: Any, sampler: Any, steps: Any,
                 request: gr.Request) -> Any:  # fmt: skip
        """The list of all pictures as it is filled. Single pictures can be drawn meanwhile."""
        sessions, visit, stamp = self.sessions, list_of(request.session_hash), next(self.stamps)
        with user_facing_errors(sessions.folder), suppress(LeftError):
            if not isinstance(found, OpenedInput):
                raise InputError("there is nothing to list: drop several images first")
            order = segment_request_of(sessions.limits, samples, seed, sampler, steps, "")
            listing = sessions.listing(found, window, name, order)
            sessions.line.leave(visit)
            sessions.renew(request.session_hash)
            with sessions.line.place(visit, client_of(request)) as ticket:
                yield {"stamp": stamp, **listing.value()}
                for ahead in sessions.rows(listing, ticket):
                    yield {"stamp": stamp, "waiting": ahead, **listing.value()}

    def stop_all(self, request: gr.Request) -> None:
        self.sessions.line.stop(list_of(request.session_hash))

    def save(self, done: Any, request: gr.Request, event: gr.EventData) -> str:
        with user_facing_errors(self.sessions.folder):
            if done is None or done[0] != event.stamp:
                raise InputError("there is nothing to download yet: draw some masks first")
            alpha = float(event.alpha) if event.alpha else None
            return str(self.sessions.pack(done[1], float(event.threshold), event.form, request.session_hash, alpha)[0])

    def leave(self, request: gr.Request) -> None:
        self.sessions.forget(request.session_hash)

    def segment(self, paths: Any, model: Any, samples: Any, seed: Any, sampler: Any, steps: Any, regions: Any,
                window: Any, slice_number: Any, threshold: Any, form: Any, request: gr.Request) -> Any:  # fmt: skip
        """Draws masks of an image (a list of files: one image, or the slices of a series); returns facts and a ZIP."""
        sessions, visit = self.sessions, request.session_hash or ""
        with user_facing_errors(sessions.folder):
            mine = [Path(path) for path in paths or []]
            sessions.remember(visit, mine)
            order = segment_request_of(sessions.limits, samples, seed, sampler, steps, regions)
            threshold = service.check_threshold(threshold)
            try:
                with sessions.line.place(visit, client_of(request), heard=not EVENT.fullmatch(visit)) as ticket:
                    ticket.wait()
                    found = service.open_files(mine, sessions.limits)
                    place = service.check_number(slice_number)
                    if len(found) > 1:
                        taken = f"This is {place_label(found, place)}: slice_number chooses another."
                        found = replace(found, notices=(*found.notices, taken))
                    *_, (_, _, done) = sessions.draw(found, place, window or "", model, order, ticket.check)
                    ticket.check()
            finally:
                sessions.age(mine)
            archive, facts = sessions.pack(done, threshold, form, visit)
            return {**facts, "agreement": facts["pairwise_iou"], "saved_as": form}, str(archive)

    def triage(self, paths: Any, model: Any, samples: Any, seed: Any, sampler: Any, steps: Any, window: Any,
               request: gr.Request) -> Any:  # fmt: skip
        """Draws masks of every image; returns a row of numbers for each, the most doubtful first, and what is promised."""
        sessions, visit = self.sessions, request.session_hash or ""
        with user_facing_errors(sessions.folder):
            mine = [Path(path) for path in paths or []]
            sessions.remember(visit, mine)
            order = segment_request_of(sessions.limits, samples, seed, sampler, steps, "")
            try:
                with sessions.line.place(visit, client_of(request), heard=not EVENT.fullmatch(visit)) as ticket:
                    listing = sessions.listing(service.open_files(mine, sessions.limits), window or "", model, order)
                    deque(sessions.rows(listing, ticket), maxlen=0)
            finally:
                sessions.age(mine)
            return {**listing.value(most_doubtful_first(listing.rows)), "warnings": sessions.notices(listing.found)}

    def models(self) -> dict[str, Any]:
        """The models by name: input size, channels, whether they need a region of interest, what they learnt from."""
        rows = {name: model.recipe for name, model in self.sessions.segmenters.items()}
        return {
            n: {"size": r.size, "channels": r.channels, "regions": r.crop, "data": r.dataset} for n, r in rows.items()
        }


def _controls(sessions: SessionManager) -> SimpleNamespace:
    names, limits = list(sessions.segmenters), sessions.limits
    crops = sessions.segmenters[names[0]].recipe.crop
    c = SimpleNamespace()
    c.dropped = gr.File(label="Image, or the files of a series", file_count="multiple", height=150, elem_id="mm-upload")
    c.number = gr.Slider(1, 2, 1, step=1, label="Slice", visible=False, interactive=True)
    c.model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1, interactive=True)
    c.regions = gr.Textbox("", label="Where to look", info="Click on the image, × removes; or type X,Y; X,Y … in pixels.",
                           visible=crops, interactive=True, max_length=200, elem_id="mm-regions")  # fmt: skip
    c.samples = gr.Slider(1, limits.masks, 5, step=1, label="Masks", interactive=True)
    c.go = gr.Button("Draw masks", variant="primary", elem_id="mm-draw")
    c.stop = gr.Button("Stop", elem_id="mm-stop")
    with gr.Accordion("More settings", open=False):
        c.sampler = gr.Dropdown(
            sampler_labels(sessions.segmenters), value=OWN_SAMPLER, label="Sampler", interactive=True
        )
        c.steps = gr.Number(0, label="Steps", info="0: the model's own number", precision=0, minimum=0, maximum=1000)
        c.seed = gr.Number(0, label="Seed", info="The same seed gives the same masks.", precision=0, minimum=0)
        c.window = gr.Dropdown(list(service.WINDOWS), value=service.WINDOWS[0], label="CT window", interactive=True)
    return c


def build(sessions: SessionManager) -> Any:
    """The page as a Gradio application, not yet served."""
    with gr.Blocks(title="manymask", analytics_enabled=False, delete_cache=(60, KEPT)) as page:
        gr.HTML(HEAD, elem_id="mm-top")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                controls = _controls(sessions)
            with gr.Column(scale=3, min_width=300):
                controls.list = gr.HTML(
                    {}, html_template=text_of("list.html"), js_on_load=text_of("list.js"), apply_default_css=False,
                    elem_id="mm-list",
                )  # fmt: skip
                template = text_of("page.html").replace("EXAMPLES", thumbnails(sessions.examples))
                controls.viewer = gr.HTML(
                    {}, html_template=template, js_on_load="".join(map(text_of, ("ink.js", "page.js", "files.js"))),
                    apply_default_css=False, elem_id="mm-viewer",
                )  # fmt: skip
        _wire(controls, Events(sessions), page)
    return page


def _asked_by_programs(sessions: SessionManager) -> list[Any]:
    """The inputs of `/segment` after the files, in its order. Plain ones: what the page's own let pass depends on what
    the page shows, and what they refuse they refuse with a stack trace in the log."""
    first = {"model": next(iter(sessions.segmenters)), "samples": 5, "seed": 0, "sampler": OWN_SAMPLER, "steps": 0,
             "regions": "", "window": service.WINDOWS[0], "slice_number": 1, "threshold": 0.5, "form": "PNG"}  # fmt: skip
    return [
        gr.Textbox(value, visible=False) if isinstance(value, str) else gr.Number(value, visible=False)
        for value in first.values()
    ]


def _wire(c: SimpleNamespace, events: Events, page: Any) -> None:
    """Which event changes what. Drawings wait in the sessions's own line; opening and saving never wait for them."""
    light: dict[str, Any] = {"concurrency_id": "opening", "concurrency_limit": 2, "show_progress": "hidden"}
    heavy: dict[str, Any] = {"concurrency_id": "drawing", "concurrency_limit": None, "show_progress": "hidden"}
    private: dict[str, Any] = {"api_visibility": "private"}
    at_once: dict[str, Any] = {"queue": False, "show_progress": "hidden", **private}
    opened, drawing = gr.State(None, time_to_live=KEPT), gr.State(None, time_to_live=KEPT)
    archive, scene = gr.File(visible=False), [opened, c.viewer, drawing, c.number, c.regions]
    everything = [*scene, c.list]
    inputs = [opened, c.number, c.window, c.model, c.samples, c.seed, c.sampler, c.steps, c.regions]

    dropped = c.dropped.upload(events.drop, [c.dropped, c.window, c.model], everything, **light, **private)
    for ended in (dropped.success, dropped.failure):  # refused or not: the next drop replaces
        ended(None, None, c.dropped, js="() => null", **private)
    chosen = c.viewer.example(events.example, [c.window, c.model], everything, **light, **private)
    listed = c.list.choose(
        events.choose, [opened, c.window, c.model], scene, trigger_mode="always_last", **light, **private
    )
    for begun in (dropped.success, chosen.success, listed.success):
        begun(events.draw_at_once, inputs, [c.viewer, drawing], **heavy, **private).then(None, js=ENDED, **private)
    c.number.input(events.turn, inputs[:4], scene, trigger_mode="always_last", **light, **private)
    for changed in (c.window.change, c.model.change):
        changed(events.change, inputs[:4], everything, trigger_mode="always_last", **light, **private)
    c.viewer.remove(events.remove, c.model, everything, **at_once)
    settings = [opened, c.window, c.model, c.samples, c.seed, c.sampler, c.steps]
    c.list.all(events.draw_all, settings, c.list, **heavy, **private).then(None, js=LIST_ENDED, **private)
    c.list.stop(events.stop_all, None, None, **at_once)
    c.viewer.pick(events.pick, None, c.regions, trigger_mode="multiple", **at_once)
    c.go.click(events.draw, inputs, [c.viewer, drawing], **heavy, **private).then(None, js=ENDED, **private)
    c.stop.click(events.stop, None, None, **at_once)
    saved = c.viewer.save(events.save, drawing, archive, **light, **private)
    saved.success(None, archive, None, js=FETCH, **private)
    page.unload(events.leave)

    asked = [c.dropped, *_asked_by_programs(events.sessions)]
    told = [gr.JSON(visible=False), gr.File(visible=False)]
    gr.Button(visible=False).click(events.segment, asked, told, api_name="segment", **heavy)
    gr.Button(visible=False).click(
        events.triage, [*asked[:6], asked[7]], gr.JSON(visible=False), api_name="triage", **heavy
    )
    gr.api(events.models, api_name="models", queue=False)
