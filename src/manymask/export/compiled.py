"""A segmenter whose networks another engine runs, while torch draws the noise and steps the sampler.

Three graphs, each traced once: images → condition maps, noisy latents → the denoiser's output, latents → masks. Every
sampler, number of steps and masks, and what a calibration reads of the image, therefore stay what they are with torch.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from manymask.choices import ExportedEngine
from manymask.errors import ConfigError
from manymask.export.convert import require_engine, write_onnx
from manymask.export.sessions import Session, session_of
from manymask.models.autoencoder import Coder
from manymask.models.base import MaskSampler
from manymask.models.latent_diffusion import DiffusionSegmenter

GRAPHS = ("encode", "denoise", "decode")


class CompiledSegmenter(DiffusionSegmenter):
    """A diffusion segmenter on the CPU whose networks are sessions; it shares the weights of the original.

    Args:
        model: the original, on the CPU.
        encode: images → the condition maps.
        denoise: noisy latents, times and condition maps → the denoiser's output.
        decode: latents → masks.
    """

    def __init__(self, model: DiffusionSegmenter, encode: Session, denoise: Session, decode: Session) -> None:
        nn.Module.__init__(self)
        self.setting = model.setting
        for name in ("image_codec", "denoiser", "presence", "auxiliary", "null", "classifier"):
            setattr(self, name, getattr(model, name))
        self.mask_codec = _CompiledDecoder(model.mask_codec, decode)  # type: ignore[assignment]
        self._sessions = {"encode": encode, "denoise": denoise}
        self.eval()

    @classmethod
    def load(
        cls, model: DiffusionSegmenter, folder: Path, engine: ExportedEngine, threads: int | None = None
    ) -> "CompiledSegmenter":
        """From the files of `write_graphs`."""
        encode, denoise, decode = (session_of(folder / f"{name}.onnx", engine, threads) for name in GRAPHS)
        return cls(model, encode, denoise, decode)

    def condition(self, image: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        """See `DiffusionSegmenter`; hidden images are encoded by torch."""
        if hidden is not None:
            return super().condition(image, hidden)
        return _run(self._sessions["encode"], [image])

    def _network(self, z: Tensor, t: Tensor, condition: list[Tensor]) -> Tensor:
        return _run(self._sessions["denoise"], [z, self.setting.process.time_input(t).float(), *condition])[0]


class _CompiledDecoder(nn.Module):
    """A codec of masks that a session decodes."""

    def __init__(self, codec: Coder, session: Session) -> None:
        super().__init__()
        self.codec = codec
        self.latent_channels = codec.latent_channels
        self.factor = codec.factor
        self.session = session

    def encode(self, x: Tensor) -> Tensor:
        """As the codec itself."""
        return self.codec.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, c, h, w) → (B, 1, f·h, f·w) in [0, 1]."""
        return _run(self.session, [z])[0]


class _Condition(nn.Module):
    def __init__(self, model: DiffusionSegmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.condition(image))


class _Network(nn.Module):
    def __init__(self, model: DiffusionSegmenter) -> None:
        super().__init__()
        self.denoiser = model.denoiser

    def forward(self, z: Tensor, time: Tensor, *condition: Tensor) -> Tensor:
        result: Tensor = self.denoiser(z, time, list(condition))
        return result


class _Decode(nn.Module):
    def __init__(self, model: DiffusionSegmenter) -> None:
        super().__init__()
        self.codec = model.mask_codec

    def forward(self, z: Tensor) -> Tensor:
        return self.codec.decode(z)


def compiled(
    model: MaskSampler, engine: ExportedEngine, channels: int, size: int, threads: int | None = None
) -> CompiledSegmenter:
    """Compile the networks of a segmenter.

    Args:
        model: a diffusion segmenter on the CPU, in evaluation mode.
        engine: "onnx" or "openvino".
        channels: C of the images.
        size: S of the images.
        threads: of the processor for one draw; as many as torch uses if None.

    Returns:
        A segmenter that draws the same masks.

    Raises:
        ManymaskError: the model is no diffusion segmenter, or an extra is missing.
    """
    if not isinstance(model, DiffusionSegmenter):
        raise ConfigError(f"the engine {engine} runs diffusion segmenters, and this is a {type(model).__name__}",
                          parameter="engine")  # fmt: skip
    require_engine(engine)
    with tempfile.TemporaryDirectory() as folder:
        write_graphs(model, Path(folder), channels, size)
        return CompiledSegmenter.load(model, Path(folder), engine, threads)


def write_graphs(model: DiffusionSegmenter, folder: Path, channels: int, size: int) -> None:
    """Write the three networks as ONNX files; see `compiled` for the arguments."""
    require_engine("onnx")
    with torch.no_grad():
        image = torch.zeros(2, channels, size, size)
        maps = [x.clone() for x in model.condition(image)]
        side = size // model.mask_codec.factor
        z = torch.zeros(2, model.mask_codec.latent_channels, side, side)
        networks: dict[str, tuple[nn.Module, Sequence[Tensor], int]] = {
            "encode": (_Condition(model), [image], len(maps)),
            "denoise": (_Network(model), [z, torch.full((2,), 500.0), *maps], 1),
            "decode": (_Decode(model), [z], 1),
        }
        for name, (module, inputs, results) in networks.items():
            named = {f"in{i}": x for i, x in enumerate(inputs)}
            write_onnx(module, named, [f"out{i}" for i in range(results)], folder / f"{name}.onnx")


def _run(session: Session, arguments: Sequence[Tensor]) -> list[Tensor]:
    inputs = {f"in{i}": np.ascontiguousarray(x.detach().numpy()) for i, x in enumerate(arguments)}
    return [torch.from_numpy(x) for x in session(inputs)]
