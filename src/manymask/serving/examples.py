"""The models as the page presents them, and the images to try each of them with. No Gradio in here."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files

import numpy as np
from PIL import Image

from manymask.data.datasets import phantom
from manymask.data.datasets.base import Licence
from manymask.hub.intended_use import finding
from manymask.inference.preprocess import Point
from manymask.inference.segmenter import Segmenter
from manymask.io.image import Picture
from manymask.serving import simulated
from manymask.serving.view_model import data_url, scaled

_LICENCES = {"cc0-1.0": "CC0 1.0", "cc-by-3.0": "CC BY 3.0", "apache-2.0": "Apache 2.0"}


@dataclass(frozen=True)
class Example:
    """A free image to try a model with.

    Attributes:
        model: the name of the model.
        picture: the image.
        caption: what it is.
        rois: where a model of regions looks.
    """

    model: str
    picture: Picture
    caption: str
    rois: tuple[Point, ...] = ()


def examples(segmenters: Mapping[str, Segmenter]) -> list[Example]:
    """One or more images for each model."""
    return [example for name, segmenter in segmenters.items() for example in _of_model(name, segmenter)]


def _of_model(name: str, segmenter: Segmenter) -> Iterator[Example]:
    recipe = segmenter.recipe
    modality = segmenter.trained.intended.modality
    if recipe.dataset == "isic2018":
        folder = files("manymask.serving") / "static" / "examples"
        for file in sorted(p.name for p in folder.iterdir() if p.name.endswith(".jpg")):
            picture = Picture(_pixels((folder / file).read_bytes()), file.removesuffix(".jpg"))
            yield Example(name, picture, f"{picture.name}, CC0")
    elif "endoscopy" in modality and recipe.channels == 3 and not recipe.crop:
        yield Example(name, Picture(simulated.colon(2), "simulated-polyp"), "Simulated polyp")
    elif "CT" in modality and recipe.channels == 1 and recipe.crop:
        pixels = simulated.lung(2)
        centre = (pixels.shape[1] // 2, pixels.shape[0] // 2)
        yield Example(name, Picture(pixels, "simulated-nodule", (0.7, 0.7)), "Simulated nodule", (centre,))
    else:
        yield from _phantoms(name, segmenter)


def _phantoms(name: str, segmenter: Segmenter) -> Iterator[Example]:
    recipe = segmenter.recipe
    for number in (1, 3, 5):
        pixels = phantom.draw(number, channels=recipe.channels).image
        pixels = pixels[:, :, 0] if recipe.channels == 1 else pixels
        rois: tuple[Point, ...] = ()
        if recipe.crop:
            margin = ((recipe.size // 4,) * 2,) * 2 + ((0, 0),) * (pixels.ndim - 2)
            pixels = np.pad(pixels, margin, mode="reflect")
            rois = ((pixels.shape[1] // 2, pixels.shape[0] // 2),)
        yield Example(name, Picture(pixels, f"phantom-{number}"), f"Phantom {number}, simulated", rois)


def _pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content), formats=("JPEG",)).convert("RGB"))


def label(name: str, segmenter: Segmenter) -> str:
    """A model as the menu names it: what it marks, then its name."""
    found = finding(segmenter.recipe.dataset)
    what = found.finding[1]
    where = found.region[1] if found.region else ""
    if where and where.lower() not in what.lower():
        what = f"{where} {what.lower()}"
    return f"{what} · {name}"


def first_model(segmenters: Mapping[str, Segmenter]) -> str | None:
    """The model that the page begins with: the first. None where they mark different things: a photograph does not tell
    what it shows, so that the visitor says it."""
    marked = {label("", segmenter) for segmenter in segmenters.values()}
    return next(iter(segmenters)) if len(marked) == 1 else None


def licence_words(licence: Licence) -> str:
    """The terms of a model in a few words."""
    if licence.tag in _LICENCES:
        return _LICENCES[licence.tag]
    return "research and education only" if "No commercial use" in licence.text else "the terms of its training data"


def about(segmenter: Segmenter) -> str:
    """What a model is for and its licence, as HTML."""
    trained = segmenter.trained
    purpose = trained.intended.purpose or "Its purpose is not known."
    return (
        f'<p>{escape(purpose)} <span class="mm-licence">Licence: {escape(licence_words(trained.licence))}.</span></p>'
    )


def cards(segmenters: Mapping[str, Segmenter], shown: list[Example]) -> str:
    """A part for each model with its examples, a button each, as HTML."""
    parts = []
    for name, segmenter in segmenters.items():
        mine = [(k, example) for k, example in enumerate(shown) if example.model == name]
        buttons = "".join(_button(k, example) for k, example in mine)
        parts.append(f'<section class="mm-model"><h3>{escape(label(name, segmenter))}</h3>{about(segmenter)}'
                     f'<div class="mm-thumbs">{buttons}</div></section>')  # fmt: skip
    return "".join(parts)


def _button(number: int, example: Example) -> str:
    image = data_url(scaled(example.picture.pixels, 256), lossless=False)
    return (f'<button type="button" data-k="{number}"><img alt="" src="{image}">'
            f"<span>{escape(example.caption)}</span></button>")  # fmt: skip
