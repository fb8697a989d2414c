"""What happens on the page and at its endpoints. Every event is a method, which answers with values of components."""

import itertools
import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from manymask.errors import InputError
from manymask.inference.segmenter import Segmenter
from manymask.io.image import Picture
from manymask.serving import service
from manymask.serving.examples import about
from manymask.serving.listing import most_doubtful_first
from manymask.serving.request_queue import LeftError, StoppedError
from manymask.serving.saving import read_edit, read_edit_text, recount
from manymask.serving.service import OpenedInput, SegmentRequest
from manymask.serving.session import CHOOSE, SessionManager, list_of, segment_request_of, user_facing_errors
from manymask.serving.view_model import thumbnail

EVENT = re.compile("[0-9a-f]{32}")  # the visit of a caller of `/call/segment` is the event itself
CHANGED = 7  # components that another model or window changes
THUMBNAILS = 24  # at most at once


def client_of(request: gr.Request) -> str:
    """The address that a request comes from."""
    return request.client.host if request.client else ""


def place_label(found: OpenedInput | Picture, number: int) -> str:
    """`slice 3 of 20`; nothing where there is one picture alone."""
    if isinstance(found, Picture) or len(found) == 1:
        return ""
    return f"{found.kind.lower()} {number} of {len(found)}"


def detail_choices(
    model: Segmenter | None = None, picture: Picture | None = None, sides: Sequence[int] = ()
) -> list[tuple[str, int]]:
    """How an image can be drawn, in words, with the side of the windows; 0 is the whole image."""

    def smaller(side: int) -> str:
        share = side / model.recipe.size if model else 1
        return "at full size" if share <= 1 else f"{share:.1f} times smaller".replace(".0 ", " ")

    whole = f", {smaller(max(picture.pixels.shape[:2]))}" if picture else ""
    return [(f"Whole image{whole}", 0), *((f"Windows of {side} px, {smaller(side)}", side) for side in sides)]


class Events:
    """What happens on the page. Every method answers with the values of the components that it is wired to.

    Every scene carries a stamp, and so does a finished drawing: what comes late never stands for something newer.
    """

    def __init__(self, sessions: SessionManager) -> None:
        self.sessions = sessions
        self.stamps = itertools.count(1)
        self.chosen: dict[str, tuple[str, str | None]] = {}  # window and model by visit, of what the page shows
        self.to_draw: set[str] = set()  # visits that have just chosen another model

    def _show(self, found: OpenedInput | Picture, place: int, window: str, name: str, tile: Any = 0,
              rois: tuple[tuple[int, int], ...] = ()) -> Any:  # fmt: skip
        """The image alone; what was drawn before is gone. tile: side of the windows that stay chosen."""
        model = self._seen_by(name)
        picture = self.sessions.shown(found, place, window)
        scene = service.preview(model, picture)
        count, kind = (1, "Image") if isinstance(found, Picture) else (len(found), found.kind)
        scene.place, scene.number = place_label(found, place), place
        scene.warnings = (*(() if name else (CHOOSE.capitalize(),)), *self.sessions.notices(found), *scene.warnings)
        scene.marks, scene.crop = rois, scene.crop if name else 0
        sliced = count > 1 and kind == "Slice"  # images have the strip
        slider = gr.update(maximum=max(2, count), value=place, visible=sliced, label=kind)
        regions = gr.update(value="; ".join(f"{x},{y}" for x, y in rois), visible=bool(name) and model.recipe.crop)
        return (
            found,
            scene.value(stamp=next(self.stamps)),
            None,
            slider,
            regions,
            self._detail(model if name else None, picture, tile),
        )

    def _detail(self, model: Segmenter | None = None, picture: Picture | None = None, tile: Any = 0) -> Any:
        """The choice of windows, which is there for images much larger than the model's scale, or once it was made."""
        sides = service.tiles(model, picture) if model and picture else ()
        tile = 0 if model is None or model.recipe.crop else int(tile or 0)
        sides = sides if tile in (0, *sides) else (*sides, tile)
        return gr.update(choices=detail_choices(model, picture, sides), value=tile, visible=bool(sides))

    def _seen_by(self, name: str | None) -> Segmenter:
        """The model that says how an image is shown: the first, as long as none is chosen."""
        return self.sessions.segmenter(name or next(iter(self.sessions.segmenters)))

    def _offer(self, found: OpenedInput | Picture | None, name: str, visit: str | None) -> dict[str, Any]:
        """The list in place of an earlier one, which ends: empty, with how many pictures there are to be listed."""
        self.sessions.line.leave(list_of(visit))
        stamp = next(self.stamps)
        if not isinstance(found, OpenedInput) or not name or self.sessions.segmenter(name).recipe.crop:
            return {"stamp": stamp, "images": 0}
        return {"stamp": stamp, "images": len(found), "kind": found.kind}

    def _strip(self, found: OpenedInput | Picture | None) -> dict[str, Any]:
        """The strip of thumbnails, still without them; there is none of a single image, or of slices."""
        count = len(found) if isinstance(found, OpenedInput) and found.kind == "Image" else 1
        return {"stamp": next(self.stamps), "images": count if count > 1 else 0}

    def drop(self, paths: list[str] | None, window: str, name: str, request: gr.Request) -> Any:
        """New files in place of what was there."""
        with user_facing_errors(self.sessions.folder):
            mine = [Path(path) for path in paths or []]
            self.chosen[request.session_hash or ""] = (window, name)
            self.sessions.line.leave(request.session_hash or "")
            self.sessions.remember(request.session_hash, mine)
            found = service.open_files(mine, self.sessions.limits)
            first = 1 if found.kind == "Image" else (len(found) + 1) // 2
            offer = self._offer(found, name, request.session_hash)
            return (*self._show(found, first, window, name), offer, self._strip(found))

    def example(self, window: str, event: gr.EventData, request: gr.Request) -> Any:
        """An example, with the model that it is for."""
        with user_facing_errors(self.sessions.folder):
            self.sessions.line.leave(request.session_hash or "")
            chosen = self.sessions.examples[int(event.number) % len(self.sessions.examples)]
            self.chosen[request.session_hash or ""] = (window, chosen.model)
            offer = self._offer(chosen.picture, chosen.model, request.session_hash)
            shown = self._show(chosen.picture, 1, window, chosen.model, rois=chosen.rois)
            return (*shown, offer, self._strip(None), chosen.model)

    def change(
        self, found: OpenedInput | Picture | None, place: float, window: str, name: str, request: gr.Request
    ) -> Any:
        """Another window or model: what is listed was drawn with the old one. A menu that is only left says so, too."""
        visit = request.session_hash or ""
        before = self.chosen.get(visit, (window, None))
        if before == (window, name):
            return (gr.skip(),) * CHANGED
        self.chosen[visit] = (window, name)
        if before[1] != name:
            self.to_draw.add(visit)
        with user_facing_errors(self.sessions.folder):
            offer = self._offer(found, name, request.session_hash)
        return (*self.turn(found, place, window, name, 0, request), offer)

    def turn(
        self, found: OpenedInput | Picture | None, place: float, window: str, name: str, tile: Any, request: gr.Request
    ) -> Any:
        """Another slice."""
        with user_facing_errors(self.sessions.folder):
            self.sessions.line.leave(request.session_hash or "")
            if found is None:
                return gr.skip(), gr.skip(), gr.skip(), gr.skip(), self._regions(name), self._detail()
            return self._show(found, int(place), window, name, tile)

    def choose(self, found: Any, window: str, name: str, tile: Any, request: gr.Request, event: gr.EventData) -> Any:
        """The picture of a row of the list, or of a thumbnail."""
        return self.turn(found, event.number, window, name, tile, request)

    def thumbnails(self, found: Any, window: str, event: gr.EventData) -> Any:
        """Pictures of the strip, as many as the browser asks for."""
        with user_facing_errors(self.sessions.folder):
            numbers = [int(number) for number in list(event.numbers)[:THUMBNAILS]]
            return {"stamp": event.stamp, "thumbnails": list(self._thumbnails(found, window, numbers))}

    def _thumbnails(self, found: Any, window: str, numbers: list[int]) -> Iterator[dict[str, Any]]:
        for number in numbers:
            try:
                picture = self.sessions.shown(found, number, window)
                yield {"number": number, "name": picture.name, "image": thumbnail(picture)}
            except InputError:  # is said where the image is chosen
                yield {"number": number, "name": "cannot be read", "image": ""}

    def about(self, name: str) -> str:
        """What a model is for, under the menu."""
        with user_facing_errors(self.sessions.folder):
            return about(self.sessions.segmenter(name))

    def remove(self, name: str, request: gr.Request) -> Any:
        """The image goes, from the server too; the page is as it was at first."""
        self.sessions.forget(request.session_hash)
        offer = self._offer(None, name, request.session_hash)
        viewer, slider = {"stamp": next(self.stamps)}, gr.update(visible=False)
        return None, viewer, None, slider, self._regions(name), self._detail(), offer, self._strip(None)

    def _regions(self, name: str) -> Any:
        """The box of regions: empty, and only there for a model that has regions."""
        return gr.update(value="", visible=bool(name) and self.sessions.segmenter(name).recipe.crop)

    def pick(self, event: gr.EventData) -> str:
        """The regions as they are marked in the browser."""
        return str(event.regions)[:200]

    def draw(self, found: Any, place: float, window: str, name: str, samples: Any, seed: Any, sampler: Any, steps: Any,
             regions: Any, tile: Any, request: gr.Request) -> Any:  # fmt: skip
        """The masks as they come."""
        with user_facing_errors(self.sessions.folder):
            if found is None:
                raise InputError("choose an image first: drop one, or pick an example")
            order = segment_request_of(self.sessions.limits, samples, seed, sampler, steps, regions, tile)
            yield from self._drawn(found, int(place), window, name, order, request)

    def draw_at_once(self, found: Any, place: float, window: str, name: str, samples: Any, seed: Any, sampler: Any,
                     steps: Any, regions: Any, tile: Any, request: gr.Request) -> Any:  # fmt: skip
        """The same without a click, unless the model must first be shown where to look."""
        if not name:
            return
        with user_facing_errors(self.sessions.folder):
            recipe = self.sessions.segmenter(name).recipe
            whole = not recipe.crop or regions
            if found is not None and not whole:
                whole = max(self.sessions.shown(found, int(place), window).pixels.shape[:2]) <= recipe.size
        if found is not None and whole:
            yield from self.draw(found, place, window, name, samples, seed, sampler, steps, regions, tile, request)

    def draw_chosen(self, found: Any, place: float, window: str, name: str, samples: Any, seed: Any, sampler: Any,
                    steps: Any, regions: Any, tile: Any, request: gr.Request) -> Any:  # fmt: skip
        """The same with a model that was just chosen."""
        if (request.session_hash or "") in self.to_draw:
            self.to_draw.discard(request.session_hash or "")
            yield from self.draw_at_once(
                found, place, window, name, samples, seed, sampler, steps, regions, tile, request
            )

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

    def draw_all(self, found: Any, window: str, name: str, samples: Any, seed: Any, sampler: Any, steps: Any, tile: Any,
                 request: gr.Request) -> Any:  # fmt: skip
        """The list of all pictures as it is filled. Single pictures can be drawn meanwhile."""
        sessions, visit, stamp = self.sessions, list_of(request.session_hash), next(self.stamps)
        with user_facing_errors(sessions.folder), suppress(LeftError):
            if not isinstance(found, OpenedInput):
                raise InputError("there is nothing to list: drop several images first")
            order = segment_request_of(sessions.limits, samples, seed, sampler, steps, "", tile)
            listing = sessions.listing(found, window, name, order)
            sessions.line.leave(visit)
            sessions.renew(request.session_hash)
            with sessions.line.place(visit, client_of(request)) as ticket:
                yield {"stamp": stamp, **listing.value()}
                for ahead in sessions.rows(listing, ticket):
                    yield {"stamp": stamp, "waiting": ahead, **listing.value()}

    def stop_all(self, request: gr.Request) -> None:
        self.sessions.line.stop(list_of(request.session_hash))

    def recount(self, done: Any, event: gr.EventData) -> Any:
        """The numbers of a drawing without some of its masks, or after corrections."""
        with user_facing_errors(self.sessions.folder):
            if done is None or done[0] != event.stamp:
                return gr.skip()
            edit = read_edit(done[1], event.left_out, event.strokes)
            counted = recount(done[1], event.threshold, edit)
            return {"stamp": event.stamp, "turn": event.turn, "counted": counted}

    def save(self, done: Any, request: gr.Request, event: gr.EventData) -> str:
        """The ZIP of what the page shows."""
        with user_facing_errors(self.sessions.folder):
            if done is None or done[0] != event.stamp:
                raise InputError("there is nothing to download yet: draw some masks first")
            edit = read_edit(done[1], event.left_out, event.strokes, bool(event.accepted))
            alpha = float(event.alpha) if event.alpha else None
            visit = request.session_hash
            return str(self.sessions.pack(done[1], float(event.threshold), event.form, visit, alpha, edit)[0])

    def leave(self, request: gr.Request) -> None:
        self.chosen.pop(request.session_hash or "", None)
        self.to_draw.discard(request.session_hash or "")
        self.sessions.forget(request.session_hash)

    def segment(self, paths: Any, model: Any, samples: Any, seed: Any, sampler: Any, steps: Any, regions: Any,
                window: Any, slice_number: Any, threshold: Any, form: Any, left_out: Any, accepted: Any, tile: Any,
                request: gr.Request) -> Any:  # fmt: skip
        """Draws masks of an image (a list of files: one image, or the slices of a series); returns facts and a ZIP."""
        sessions, visit = self.sessions, request.session_hash or ""
        with user_facing_errors(sessions.folder):
            mine = [Path(path) for path in paths or []]
            sessions.remember(visit, mine)
            order = segment_request_of(sessions.limits, samples, seed, sampler, steps, regions, tile)
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
            edit = read_edit_text(done, left_out, accepted)
            archive, facts = sessions.pack(done, threshold, form, visit, None, edit)
            return {**facts, "agreement": facts["pairwise_iou"], "saved_as": form}, str(archive)

    def triage(self, paths: Any, model: Any, samples: Any, seed: Any, sampler: Any, steps: Any, window: Any,
               tile: Any, request: gr.Request) -> Any:  # fmt: skip
        """Draws masks of every image; returns a row of numbers for each, the most doubtful first, and what is promised."""
        sessions, visit = self.sessions, request.session_hash or ""
        with user_facing_errors(sessions.folder):
            mine = [Path(path) for path in paths or []]
            sessions.remember(visit, mine)
            order = segment_request_of(sessions.limits, samples, seed, sampler, steps, "", tile)
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
