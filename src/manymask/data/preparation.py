"""The steps of `store.prepare`: cases are read, checked and written, and described in the manifest."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np

from manymask.data import survey, twins
from manymask.data.case import Case, Scheme, Source
from manymask.data.datasets.pairs import listed, safe_name
from manymask.data.manifest import FORMAT
from manymask.data.resize import resize_image, resize_mask
from manymask.data.writer import Writer
from manymask.errors import InputError, ManymaskError
from manymask.progress import Progress

Loaded = tuple[np.ndarray, np.ndarray, survey.Look]


def write_cases(source: Source, writer: Writer, size: int) -> tuple[dict[str, survey.Look], dict[str, ManymaskError]]:
    """Write the cases that can be used; by id, the notes on these and the reasons against the others."""
    looks: dict[str, survey.Look] = {}
    problems: dict[str, ManymaskError] = {}
    for case, loaded in _load_all(source.cases, source.name, size):
        if isinstance(loaded, ManymaskError):
            problems[case.id] = loaded
            continue
        image, masks, noted = loaded
        if case.id in looks:
            problems[case.id] = InputError(f"two images are called {case.id}")
        elif writer.raters not in (None, len(masks)):
            problems[case.id] = InputError(
                f"case {case.id} has {len(masks)} masks but the first case has {writer.raters}"
            )
        else:
            writer.add(resize_image(image, size), np.stack([resize_mask(mask, size) for mask in masks]), masks)
            looks[case.id] = noted
    return looks, problems


def describe(
    source: Source, cases: Sequence[Case], looks: dict[str, survey.Look], hashes: np.ndarray, size: int
) -> dict[str, Any]:
    """The manifest's entries on these cases: names, groups and splits, with equal images in one group."""
    ids = [case.id for case in cases]
    found = [looks[case.id] for case in cases]
    equal = twins.equal_images({case: looks[case].pixels for case in ids})
    groups = twins.joined_groups({case.id: case.group for case in cases}, equal)
    schemes: dict[str, Scheme] = {}
    said = [*source.notes, *survey.noted(cases), *survey.kinds_of_masks(cases), *survey.warnings(ids, found, size)]
    if equal:
        said.append(f"{len(equal)} image(s) are there several times: " + listed([" = ".join(e) for e in equal]))
    for name, whole in source.schemes.items():
        scheme: Scheme = {part: [case for case in members if case in looks] for part, members in whole.items()}
        empty = [part for part, members in whole.items() if members and not scheme[part]]
        if empty:
            raise InputError(f"no usable image is left for {' and '.join(empty)} of split {name}")
        schemes[name], lines = twins.checked(
            scheme, groups, equal, dict(zip(ids, hashes, strict=True)), name in source.given
        )
        said += [f"split {name}: {line}" for line in lines]
    partly = any(not all(case.read_by) for case in cases)
    return {"format": FORMAT, "name": source.name, "size": size, "licence": source.licence, "remark": source.remark,
            "schemes": {name: dict(scheme) for name, scheme in schemes.items()}, "ids": ids,
            "groups": [groups[case] for case in ids], "foreground": survey.foreground(found), "warnings": said,
            "layout": safe_name(source.layout),
            "read_by": [list(map(int, case.read_by)) for case in cases] if partly else None}  # fmt: skip


def _load(case: Case, size: int) -> Loaded | ManymaskError:
    """The image and masks of a case with notes on them, or the reason why it cannot be used."""
    try:
        image, masks = case.read()
    except ManymaskError as error:
        return error
    if image.min() == image.max():
        return InputError(f"case {case.id}: the image is flat, every pixel is {image.min()}; remove it")
    if masks.shape[1:] != image.shape[:2]:
        height, width = image.shape[:2]
        mask_height, mask_width = masks.shape[1:]
        return InputError(
            f"case {case.id}: the image is {width}×{height} but its mask {mask_width}×{mask_height}; "
            "they must have one size"
        )
    return image, masks, survey.inspect_case(case, image, masks, size)


def _load_all(cases: Sequence[Case], name: str, size: int) -> Iterator[tuple[Case, Loaded | ManymaskError]]:
    """The cases in order, decoded by a few threads, at most 64 ahead."""
    pending = iter(cases)
    with ThreadPoolExecutor(4) as pool, Progress(total=len(cases), desc=f"prepare {name}", unit="case") as bar:
        futures = [(case, pool.submit(_load, case, size)) for case in islice(pending, 64)]
        while futures:
            case, future = futures.pop(0)
            yield case, future.result()
            futures += [(case, pool.submit(_load, case, size)) for case in islice(pending, 1)]
            bar.update()
