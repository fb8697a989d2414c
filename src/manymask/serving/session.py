"""One sessions for all visitors: the models, the examples, and what each visit leaves on the disk until it ends."""

import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from typing import Any

from manymask.choices import SamplerName
from manymask.diffusion.samplers import SAMPLERS
from manymask.errors import InputError, ManymaskError
from manymask.inference.segmenter import Segmenter
from manymask.io.dicom.series import seen_through
from manymask.io.image import Picture
from manymask.models.ensembled import Ensembled
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.serving import service
from manymask.serving.examples import examples
from manymask.serving.guard import log_error
from manymask.serving.listing import Listing, fill
from manymask.serving.request_queue import RequestQueue, Ticket
from manymask.serving.saving import Edit, pack
from manymask.serving.service import Limits, OpenedInput, SegmentRequest, Subject
from manymask.serving.uploads import KEPT, RESULT_KEPT

CHOOSE = "choose a model: what does the image show?"
OWN_SAMPLER = "the model's own"


def sampler_labels(segmenters: Mapping[str, Segmenter]) -> list[str]:
    """The choices of the page: samplers that can draw from at least one of these models."""
    settings = [segmenter.recipe.segmenter for segmenter in segmenters.values()]
    settings = [setting.member if isinstance(setting, Ensembled) else setting for setting in settings]
    processes = [setting.process for setting in settings if isinstance(setting, LatentDiffusion)]
    fitting = [kind for kind in SAMPLERS.values() if any(isinstance(process, kind.serves) for process in processes)]
    return [OWN_SAMPLER, *(kind.label for kind in fitting)]


class SessionManager:
    """What the events of the page call: one person's visit each, with the models they share."""

    def __init__(self, segmenters: Mapping[str, Segmenter], limits: Limits, folder: Path) -> None:
        self.segmenters, self.limits, self.folder = dict(segmenters), limits, folder
        self.examples = examples(segmenters)
        self.line = RequestQueue(limits.waiting, limits.waiting_each)
        self.visits: dict[str, set[Path]] = {}
        self.lock = threading.Lock()

    # what visitors leave on the disk -------------------------------------------------------------------------------

    def remember(self, visit: str | None, paths: Sequence[Path]) -> None:
        """Files that go when the visit ends."""
        with self.lock:
            self.visits.setdefault(visit or "", set()).update(paths)

    def forget(self, visit: str | None) -> None:
        """Ends what a visit draws and removes what it left, unless another visitor holds the same file."""
        self.line.leave(visit or "")
        self.line.leave(list_of(visit))
        with self.lock:
            gone = self.visits.pop(visit or "", set())
            held = {path for paths in self.visits.values() for path in paths}
        for path in gone - held:
            if path.is_relative_to(self.folder):
                path.unlink(missing_ok=True)
                with suppress(OSError):
                    path.parent.rmdir()

    def renew(self, visit: str | None) -> None:
        """The files of a visit lie for as long as if they had just come."""
        with self.lock:
            mine = set(self.visits.get(visit or "", ()))
        for path in mine:
            with suppress(OSError):
                if path.is_relative_to(self.folder):
                    os.utime(path)

    # the steps of a visit ------------------------------------------------------------------------------------------

    def segmenter(self, name: str | None) -> Segmenter:
        if not name:
            raise InputError(CHOOSE)
        if name not in self.segmenters:
            raise InputError(f"there is no model of this name; choose one of {', '.join(self.segmenters)}")
        return self.segmenters[name]

    def shown(self, opened: OpenedInput | Picture, number: int, window: str) -> Picture:
        """The image as people see it."""
        if isinstance(opened, Picture):
            return opened
        return service.check_picture(opened.picture(number, window), self.limits)

    def subject(self, opened: OpenedInput | Picture, number: int, window: str, model: Segmenter) -> Subject:
        """The image as people see it and as the model does."""
        shown = self.shown(opened, number, window)
        file = None if isinstance(opened, Picture) else opened.file(number)
        return Subject(shown, seen_through(shown, model.recipe.window), file, tuple(self.notices(opened)))

    def draw(
        self,
        opened: OpenedInput | Picture,
        number: int,
        window: str,
        name: str,
        order: SegmentRequest,
        check: Callable[[], None],
    ) -> Iterator[Any]:
        """See `service.draw_scene`."""
        model = self.segmenter(name)
        yield from service.draw_scene(model, self.subject(opened, number, window, model), order, self.limits, check)

    def listing(self, opened: OpenedInput, window: str, name: str, order: SegmentRequest) -> Listing:
        """An empty list of all pictures."""
        model = self.segmenter(name)

        def subject(number: int) -> Subject:
            return self.subject(opened, number, window, model)

        return Listing(model, order, self.limits, opened, subject)

    def rows(self, listing: Listing, ticket: Ticket) -> Iterator[int]:
        """See `listing.fill`."""
        return fill(listing, ticket, lambda error: plain(user_facing(error), self.folder))

    def notices(self, opened: OpenedInput | Picture) -> list[str]:
        """What was left out of what was dropped."""
        return [] if isinstance(opened, Picture) else [plain(text, self.folder) for text in opened.notices]

    def pack(
        self,
        drawing: service.FinishedDrawing,
        threshold: float,
        form: Any,
        visit: str | None,
        alpha: float | None = None,
        edit: Edit = Edit(),
    ) -> tuple[Path, dict[str, Any]]:
        """See `saving.pack`; the archive goes when the visit ends."""
        archive, facts = pack(drawing, threshold, form, Path(tempfile.mkdtemp(dir=self.folder)), alpha, edit)
        self.remember(visit, [archive])
        return archive, facts

    def age(self, paths: Sequence[Path]) -> None:
        """What a program uploaded and has used goes soon; it uploads anew each time."""
        when = time.time() - KEPT + RESULT_KEPT
        for path in paths:
            with suppress(OSError):
                if path.is_relative_to(self.folder):
                    os.utime(path, (when, when))


def list_of(visit: str | None) -> str:
    """The name in the line of a visit's list, which goes on while its visitor draws single pictures."""
    return f"{visit or ''} list"


def plain(text: str, folder: Path) -> str:
    """With files of `folder` named as their owner knows them."""
    return re.sub(re.escape(str(folder)) + r"/(\w+/)?", "", text)


def user_facing(error: ManymaskError) -> str:
    """What an error says, and what a visitor can do on the page."""
    return f"{error}: click on the image, or give a region X,Y" if "rois" in error.remedies else str(error)


@contextmanager
def user_facing_errors(folder: Path) -> Iterator[None]:
    """Whatever goes wrong is one clear message to the visitor, with files of `folder` named as their owner knows them.
    What we did not foresee is told to the operator by kind and place alone: its text might be a patient's."""
    import gradio as gr

    try:
        yield
    except ManymaskError as error:
        said = escape(plain(user_facing(error), folder), quote=False)
        raise gr.Error(said, duration=None, print_exception=False) from None  # stands until something newer is shown
    except MemoryError:
        raise gr.Error("The image is too large for this server.", print_exception=False) from None
    except Exception as error:
        log_error(error)
        raise gr.Error("Something unforeseen went wrong with this image.", print_exception=False) from None


def segment_request_of(
    limits: Limits, samples: Any, seed: Any, sampler: Any, steps: Any, regions: Any, tile: Any = None
) -> SegmentRequest:
    """What is to be drawn, from what a visitor or a program gave. `InputError` for what makes no sense."""
    try:
        masks, start, count, side = (service.whole(value or 0) for value in (samples, seed, steps, tile))
        if not 0 <= start < 2**63:
            raise InputError("the seed must lie between 0 and 2^63 - 1")
        points = service.read_points(regions or "", limits)
        return SegmentRequest(masks, start, _sampler(sampler), count or None, points, side or None)
    except (TypeError, ValueError, OverflowError):
        raise InputError("masks, seed, steps and the side of windows must be whole numbers") from None


def _sampler(name: Any) -> SamplerName | None:
    by_label: dict[str, SamplerName | None] = {OWN_SAMPLER: None}
    by_label |= {kind.label: own for own, kind in SAMPLERS.items()}
    known = {label.lower(): own for label, own in by_label.items()} | {own: own for own in SAMPLERS}
    wanted = str(name or OWN_SAMPLER).strip().lower()
    if wanted not in known:
        raise InputError(f"there is no sampler {str(name)[:40]!r}; choose one of {', '.join(by_label)}")
    return known[wanted]
