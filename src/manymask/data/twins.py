"""Images that are there twice: equal pixel by pixel, or alike after scaling, compressing, turning or mirroring.

The hash of an image says which of its 128 lowest frequencies (a DCT of 32×32 grey values) are clearly positive. Scaled to 0.7
and saved as JPEG of quality 50, an image changes by up to 9 bits (150 each of LIDC, ISIC, CVC). Other patients' images differ by
19 and more in LIDC, of other videos by 14 and more in CVC, and 995 of 1000 by 18 and more in ISIC.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from scipy.fft import dctn

from manymask.data.case import PARTS, Part, Scheme
from manymask.data.datasets.pairs import listed
from manymask.data.dihedral import dihedral
from manymask.errors import InputError

BITS = 128
CLEAR = 4.0  # grey values, orthonormal DCT: less is noise, in smooth images all there is
NEAR = 12  # bits that two hashes of one image may differ by
_SIDE = 32
_ROWS = 256  # compared at once


def image_hashes(images: Iterable[np.ndarray], turned: bool = False) -> np.ndarray:
    """uint8 images (C, S, S) → uint8 (N, BITS / 8), or in all eight orientations, as they are first, (N, 8, BITS / 8)."""
    row, column = np.indices((_SIDE, _SIDE))
    lowest = np.lexsort((row.ravel(), (row + column).ravel()))[1 : BITS + 1]  # without the mean
    small = [_thumbnail(image) for image in images]
    seen = torch.from_numpy(np.stack(small) if small else np.zeros((0, _SIDE, _SIDE), np.float32))
    ways = [dihedral(seen, k).numpy() for k in range(8 if turned else 1)]
    waves = dctn(np.stack(ways, axis=1), axes=(2, 3), norm="ortho").reshape(len(seen), len(ways), _SIDE**2)
    hashes = np.packbits(waves[:, :, lowest] > CLEAR, axis=2)
    return hashes if turned else hashes[:, 0]


def _thumbnail(image: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(image.mean(axis=0, dtype=np.float32))
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)


def all_hashes(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Each hash of several lots once; None if none of them is known."""
    known = [part for part in parts if part is not None]
    return np.unique(np.concatenate(known), axis=0) if known else None


def hashes_as_text(hashes: np.ndarray) -> str:
    """A line of hexadecimal digits for each hash, sorted: the order of cases is not told."""
    return "".join(sorted(f"{row.tobytes().hex()}\n" for row in hashes))


def hashes_from_text(text: str) -> np.ndarray:
    """The inverse, uint8 (N, BITS / 8). `ValueError` for anything else."""
    rows = [bytes.fromhex(line) for line in text.split()]
    if any(len(row) != BITS // 8 for row in rows):
        raise ValueError(f"a hash must have {BITS // 4} hexadecimal digits")
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, BITS // 8)


def near_pairs(some: np.ndarray, others: np.ndarray) -> list[tuple[int, int]]:
    """(i, j) for each of `some`, in one orientation or all, that is near one of `others`: the nearest one."""
    if not len(some) or not len(others):
        return []
    mine, theirs = (2 * np.unpackbits(hashes, axis=-1).astype(np.float32) - 1 for hashes in (some, others))
    mine, found = mine.reshape(len(mine), -1, BITS), []
    for start in range(0, len(mine), _ROWS):
        ways = mine[start : start + _ROWS].swapaxes(0, 1)
        alike = np.max([way @ theirs.T for way in ways], axis=0)  # BITS − 2 · differing bits
        nearest = alike.argmax(axis=1)
        close = alike[np.arange(len(alike)), nearest] >= BITS - 2 * NEAR
        found += [(start + int(i), int(nearest[i])) for i in np.flatnonzero(close)]
    return found


def equal_images(digests: Mapping[str, bytes]) -> list[list[str]]:
    """Cases whose pixels are equal, in lists of two and more."""
    members: dict[bytes, list[str]] = {}
    for case, digest in digests.items():
        members.setdefault(digest, []).append(case)
    return [cases for cases in members.values() if len(cases) > 1]


def joined_groups(groups: Mapping[str, str], equal: Sequence[Sequence[str]]) -> dict[str, str]:
    """The groups of all cases after those that share an image have become one."""
    parent = {group: group for group in groups.values()}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    for cases in equal:
        first, *rest = sorted({root(groups[case]) for case in cases})
        parent.update(dict.fromkeys(rest, first))
    return {case: root(group) for case, group in groups.items()}


def kept_together(scheme: Scheme, groups: Mapping[str, str]) -> tuple[Scheme, int]:
    """The scheme with each group in one part, that which holds most of it; and how many cases were moved."""
    held: dict[str, dict[Part, int]] = {}
    place = {case: part for part, ids in scheme.items() for case in ids}
    for case, part in place.items():
        count = held.setdefault(groups[case], dict.fromkeys(PARTS, 0))
        count[part] += 1
    home = {group: max(PARTS, key=lambda part: count[part]) for group, count in held.items()}
    moved = sum(home[groups[case]] != part for case, part in place.items())
    if not moved:
        return scheme, 0
    parts: dict[Part, list[str]] = {part: [] for part in scheme}
    for case in place:
        parts[home[groups[case]]].append(case)
    empty = [part for part, ids in parts.items() if scheme[part] and not ids]
    if empty:
        raise InputError(
            f"too many images are equal pixel by pixel: no different ones are left for {' and '.join(empty)}"
        )
    return {part: sorted(ids) for part, ids in parts.items()}, moved


def crossing(scheme: Scheme, equal: Sequence[Sequence[str]]) -> list[list[str]]:
    """Those equal images that lie in several parts of a scheme."""
    place = {case: part for part, ids in scheme.items() for case in ids}
    return [list(cases) for cases in equal if len({place[case] for case in cases if case in place}) > 1]


def near_twins(scheme: Scheme, hashes: Mapping[str, np.ndarray], equal: Sequence[Sequence[str]]) -> list[str]:
    """A line for each part whose images look like those that are trained on, without being equal to them."""
    same = {(one, other) for cases in equal for one in cases for other in cases}
    train, lines = list(scheme.get("train", [])), []
    for part in PARTS[1:]:
        ids = list(scheme.get(part, []))
        pairs = near_pairs(_stacked(hashes, ids), _stacked(hashes, train)[:, 0])
        named = [f"{ids[i]} ≈ {train[j]}" for i, j in pairs if (ids[i], train[j]) not in same]
        if named:
            lines.append(f"{len(named)} of {len(ids)} {part} images look like training images: {listed(named)}")
    return lines


def checked(
    scheme: Scheme,
    groups: Mapping[str, str],
    equal: Sequence[Sequence[str]],
    hashes: Mapping[str, np.ndarray],
    given: bool,
) -> tuple[Scheme, list[str]]:
    """The scheme after a look for twins in several parts, with a line for each kind.

    Equal images are put into one part, unless the scheme is the owner's (`given`).
    """
    lines, across = list[str](), crossing(scheme, equal)
    if across and given:
        named = listed([" = ".join(cases) for cases in across])
        lines.append(f"{len(across)} image(s) lie in several parts, so that scores are too good: {named}")
    elif across:
        scheme, moved = kept_together(scheme, groups)
        lines.append(f"{moved} case(s) changed their part, since equal images stay together")
    return scheme, lines + near_twins(scheme, hashes, equal)


def _stacked(hashes: Mapping[str, np.ndarray], ids: Sequence[str]) -> np.ndarray:
    return np.stack([hashes[case] for case in ids]) if ids else np.zeros((0, 8, BITS // 8), np.uint8)
