"""Masks by the model beside this file: python runner.py IMAGE --out DIR [--seed 0] [--roi X Y] [--threads 1].

It needs numpy, Pillow and onnxruntime or openvino. Preparation and random numbers, so also masks, are those of manymask.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
try:
    FACTS = json.loads((HERE / "export.json").read_text(encoding="utf-8"))
    S, SHAPES = FACTS["size"], {name: [1, *shape[1:]] for name, shape in FACTS["inputs"].items()}
except (OSError, ValueError, LookupError) as broken:
    raise SystemExit(f"{HERE / 'export.json'} cannot be read: {broken}") from None


def load(threads: int) -> Any:
    if FACTS["engine"] == "onnx":
        import onnxruntime

        (options := onnxruntime.SessionOptions()).intra_op_num_threads = threads
        return onnxruntime.InferenceSession(str(HERE / "model.onnx"), options, ["CPUExecutionProvider"]).run
    import openvino

    (model := (core := openvino.Core()).read_model(HERE / "model.xml")).reshape(SHAPES)
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", settings)
    return lambda names, inputs: [compiled(inputs)[name] for name in names]


def prepare(path: Path, roi: list[int] | None) -> Any:
    """What the model sees, uint8 (C, S, S), the image's height and width, and the top left corner of a region."""
    file, head = Image.open(path), path.read_bytes()[:26]
    deep = head[24] > 8 if head.startswith(b"\x89PNG") else max(getattr(file, "tag_v2", {}).get(258, (8,))) != 8
    if file.mode not in ("L", "RGB") or deep or "transparency" in file.info or getattr(file, "n_frames", 1) > 1:
        raise SystemExit(f"{path} is no opaque grey or RGB image with 8 bits and one page; manymask reads others too")
    image = ImageOps.exif_transpose(file)
    pixels = np.array(image.convert("RGB" if FACTS["channels"] == 3 else "L")).reshape(*image.size[::-1], -1)
    size, corner = pixels.shape[:2], [0, 0]
    if pixels.min() == pixels.max():
        raise SystemExit(f"{path} is flat: there is nothing to segment")
    if roi is not None and not FACTS["crop"]:
        raise SystemExit("this model segments whole images: give it no --roi")
    if roi is not None and not (0 <= roi[0] < size[1] and 0 <= roi[1] < size[0]):
        raise SystemExit(f"--roi {roi[0]} {roi[1]} lies outside of the image of {size[1]}×{size[0]} pixels")
    if FACTS["crop"]:
        if min(size) < S or (roi is None and max(size) > S):
            raise SystemExit(f"{path} has {size[1]}×{size[0]} pixels: give --roi X Y, the middle of a region of {S}²")
        corner = [min(max(c - S // 2, 0), n - S) for c, n in zip((roi or (S // 2, S // 2))[::-1], size, strict=True)]
        pixels = pixels[corner[0] : corner[0] + S, corner[1] : corner[1] + S]
    if FACTS["stretch"]:
        low, high = float(pixels.min()), float(pixels.max())
        pixels = np.round((pixels.astype(np.float32) - low) / (high - low or 1) * 255).astype(np.uint8)
    how = Image.Resampling.BOX if min(pixels.shape[:2]) > S else Image.Resampling.BICUBIC
    planes = [np.asarray(Image.fromarray(plane).resize((S, S), how)) for plane in pixels.transpose(2, 0, 1)]
    return np.stack(planes), size, corner


def scaling(length: int, grows: bool) -> np.ndarray:
    """The matrix (length, S) that scales an axis of the masks: where they grow, a Gaussian of 0.7 and bicubic, else bilinear."""
    at, own = (np.arange(length) + 0.5) * S / length - 0.5, np.arange(S)
    matrix, smooth = np.zeros((length, S)), np.zeros((S, S))
    for tap in range(-1, 3) if grows else range(2):
        place = np.floor(at).astype(int) + tap
        far = np.abs(at - place)
        near, outer = (1.25 * far - 2.25) * far * far + 1, -0.75 * (far - 1) * (far - 2) ** 2  # Keys, a = −0.75
        weight = np.where(far <= 1, near, outer) if grows else 1 - far
        np.add.at(matrix, (np.arange(length), place.clip(0, S - 1)), weight)
    for tap in range(-3, 4) if grows else range(1):
        np.add.at(smooth, (own, (own + tap).clip(0, S - 1)), np.exp(-0.5 * (tap / 0.7) ** 2))
    scaled: np.ndarray = matrix @ (smooth / smooth.sum(axis=1, keepdims=True))
    return scaled.astype(np.float32)


def seed_of(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest(), "big") >> 1


def uniform(seed: int, name: str, sample: int) -> float:
    """Decides whether a mask is empty: van der Corput's sequence, scrambled for each image."""
    value = seed_of("stratum", seed, name, "rest", sample) / 2**79
    for level in range(16):
        value += (sample >> level & 1 ^ seed_of("stratum", seed, name, level, sample % 2**level) & 1) / 2 ** (level + 1)
    return value


def normal(seed: int, name: str, sample: int) -> np.ndarray:
    """torch.randn after manual_seed, by Mersenne Twister and Box–Muller; samples 8 … 15 are the opposites of 0 … 7."""
    source, sign = (sample - 8, -1) if sample // 8 % 2 else (sample, 1)
    stream, shape = np.random.RandomState(seed_of("sample", seed, name, source) & 0xFFFFFFFF), SHAPES["noise"][2:]
    raw = stream.randint(0, 2**32, (shape[0], int(np.prod(shape[1:])) // 16, 2, 8), np.uint32) & 0xFFFFFF
    first, second = np.moveaxis(raw.astype(np.float32) / np.float32(2**24), 2, 0)
    radius, angle = np.sqrt(-2 * np.log(1 - first)), np.float32(2 * np.pi) * second
    return sign * np.stack([radius * np.cos(angle), radius * np.sin(angle)], 2).reshape(shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--roi", type=int, nargs=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    if asked.threads < 1:
        parser.error(f"--threads must be at least 1, not {asked.threads}")
    try:
        pixels, size, (top, left) = prepare(asked.image, asked.roi)
    except OSError as error:
        raise SystemExit(f"{asked.image} cannot be read: {error}") from None
    asked.out.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
    noise = np.stack([normal(asked.seed, name, k) for k in range(FACTS["samples"])])[None]
    inputs = {"image": pixels[None].astype(np.float32) / 255, "noise": noise}
    if "uniform" in SHAPES:
        inputs["uniform"] = np.array([[uniform(asked.seed, name, k) for k in range(FACTS["samples"])]], np.float32)
    drawn = load(asked.threads)(["masks"], inputs)[0][0]
    if FACTS["crop"]:
        masks = np.zeros((len(drawn), *size), np.float32)
        masks[:, top : top + S, left : left + S] = drawn
    else:
        grows = max(size) > S
        rows, columns = scaling(size[0], grows), scaling(size[1], grows)
        masks = (rows @ drawn @ columns.T).clip(0, 1) if size != (S, S) else drawn
    confidence = masks.mean(axis=0)
    pictures = {f"mask-{k:02}": mask >= 0.5 for k, mask in enumerate(masks, 1)} | {"consensus": confidence >= 0.5}
    for name, picture in pictures.items():
        Image.fromarray(picture.astype(np.uint8) * 255).save(asked.out / f"{name}.png")
    Image.fromarray(np.round(confidence * 65535).astype(np.uint16)).save(asked.out / "confidence.png")


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # of the engine, the folder beside this file, or the place of the results
        raise SystemExit(f"{HERE} draws nothing: {str(error).strip()[:300]}") from None
