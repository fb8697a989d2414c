"""PNG and TIFF files of every kind, written here byte by byte, so that no library's writer decides what is tested."""

import struct
import zlib

import imagecodecs
import numpy as np

PACK = {1: bytes, 5: imagecodecs.lzw_encode, 8: zlib.compress, 32773: imagecodecs.packbits_encode}


def packed(samples: np.ndarray, bits: int, order: str = ">") -> bytes:
    """Rows of unsigned samples (H, N) at `bits` each, every row padded to whole bytes."""
    if bits in (16, 32):
        return samples.astype(f"{order}u{bits // 8}").tobytes()
    places = np.arange(bits - 1, -1, -1)
    spread = (samples.astype(np.int64)[:, :, None] >> places) & 1
    return np.packbits(spread.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def png(samples: np.ndarray, bits: int, colour: int, chunks: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A PNG of samples (H, W) or (H, W, channels); colour: the type in IHDR; chunks stand before the data."""
    height, width = samples.shape[:2]
    rows = packed(samples.reshape(height, -1), bits)
    wide = len(rows) // height
    data = b"".join(b"\0" + rows[k * wide : (k + 1) * wide] for k in range(height))
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    parts = [header, *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def tiff(
    samples: np.ndarray, bits: int, photometric: int, *, compression: int = 1, planar: bool = False, order: str = "<",
    tags: dict[int, list[int]] | None = None, rows: int | None = None, data: list[bytes] | None = None,
) -> bytes:  # fmt: skip
    """A TIFF of one page of samples (H, W) or (H, W, channels); tags: more of them, as SHORTs.

    data: the strips, where they are made elsewhere.
    """
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    planes = [samples[:, :, k] for k in range(channels)] if planar else [samples.reshape(height, -1)]
    rows = rows or height
    strips = data or [
        PACK[compression](packed(plane[top : top + rows], bits, order))
        for plane in planes
        for top in range(0, height, rows)
    ]
    head = {256: [width], 257: [height], 258: [bits] * channels, 259: [compression], 262: [photometric],
            277: [channels], 278: [rows], 284: [2 if planar else 1], **(tags or {})}  # fmt: skip
    return _assembled(head, strips, order)


def _assembled(head: dict[int, list[int]], strips: list[bytes], order: str) -> bytes:
    start = 8
    offsets = []
    for strip in strips:
        offsets.append(start)
        start += len(strip)
    entries = {**{code: ("H", values) for code, values in head.items()},
               273: ("I", offsets), 279: ("I", [len(s) for s in strips])}  # fmt: skip
    body, beyond = b"", b""
    place = start + 2 + 12 * len(entries) + 4
    for code in sorted(entries):
        kind, values = entries[code]
        raw = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(raw) > 4:
            pointer = struct.pack(f"{order}I", place + len(beyond))
            beyond += raw + b"\0" * (len(raw) % 2)
        else:
            pointer = raw.ljust(4, b"\0")
        body += struct.pack(f"{order}HHI", code, 3 if kind == "H" else 4, len(values)) + pointer
    magic = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(entries)) + body + struct.pack(f"{order}I", 0)
    return magic + struct.pack(f"{order}I", start) + b"".join(strips) + directory + beyond
