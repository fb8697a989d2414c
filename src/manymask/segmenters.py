"""Models that segment: `forward(batch)` gives the training loss, `predict(batch, n, seed)` n masks for each image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymask.codec import CodecSetting
from manymask.consensus import Target, training_target
from manymask.data.augment import quarter_turn, quarter_turn_back
from manymask.data.case import Batch
from manymask.denoisers import ConcatUNet, Denoiser
from manymask.losses import Dice, Loss
from manymask.networks import Network, UNet, answer, supervised
from manymask.noise import SampleNoise
from manymask.prob_unet import ProbUNet
from manymask.process import Diffusion, Process
from manymask.samplers import DDIM, Sampler

DECODED_AT_ONCE = 16  # masks; the decoder's feature maps are the largest of all


@dataclass(frozen=True)
class LatentDiffusion:
    """The paper's segmenter (Section III-C): a conditional diffusion of mask latents.

    noise_levels: how many (t, ε) are drawn for each image of a batch, since its condition is encoded but once;
    train_image_codec: whether the image encoder, started from the codec, is trained along; target: which of several
    readers' masks is learnt, their consensus or one at random.
    """

    denoiser: Denoiser = ConcatUNet()
    process: Process = Diffusion()
    sampler: Sampler = DDIM()
    target: Target = "consensus"
    noise_levels: int = 1
    train_image_codec: bool = False

    def build(self, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting) -> "DiffusionSegmenter":
        return DiffusionSegmenter(self, channels, image_codec, mask_codec)


class DiffusionSegmenter(nn.Module):
    """See `LatentDiffusion`. The parts are `image_codec`, `mask_codec` (frozen) and `denoiser`."""

    def __init__(
        self, setting: LatentDiffusion, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting
    ) -> None:
        super().__init__()
        self.setting = setting
        self.image_codec, self.mask_codec = image_codec.build(), mask_codec.build()
        self.denoiser = setting.denoiser.build(channels, self.image_codec, self.mask_codec)
        if self.image_codec.factor != self.mask_codec.factor:
            raise ValueError(f"the codecs shrink by {self.image_codec.factor} and {self.mask_codec.factor}: must agree")
        self.mask_codec.requires_grad_(False)
        self.image_codec.requires_grad_(False)
        if setting.train_image_codec and hasattr(self.image_codec, "encoder"):
            self.image_codec.encoder.requires_grad_(True)

    def train(self, mode: bool = True) -> "DiffusionSegmenter":
        """The codecs stay in evaluation mode whatever the mode."""
        super().train(mode)
        self.mask_codec.eval()
        self.image_codec.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """E‖target − network(z_t ⊕ z_X, t)‖² (Eq. 4 in latent space)."""
        k, setting = self.setting.noise_levels, self.setting
        mask = training_target(batch.truth(), setting.target, batch.noise.uniform(len(batch.image)))
        with torch.no_grad():
            z0 = self.mask_codec.encode(mask).repeat_interleave(k, dim=0)
        condition = [c.repeat_interleave(k, dim=0) for c in self.condition(batch.image)]
        t = setting.process.draw_times(batch.noise, len(z0)).to(z0.device)
        epsilon = batch.noise.normal(*z0.shape).to(z0)
        output = self.denoiser(setting.process.corrupt(z0, epsilon, t), t, condition).float()
        return {"loss": F.mse_loss(output, setting.process.target(z0, epsilon, t))}

    def condition(self, image: Tensor) -> list[Tensor]:
        """What the denoiser is told of the image; runs once however many samples are drawn."""
        with torch.set_grad_enabled(self.setting.train_image_codec and torch.is_grad_enabled()):
            z_image = self.image_codec.encode(image)
        return self.denoiser.condition(image, z_image)

    def sample(self, condition: list[Tensor], noise: SampleNoise, shape: torch.Size, sampler: Sampler) -> Tensor:
        """Mask latents (B · n, c, h, w) from noise, for conditions already repeated n times."""
        device = condition[0].device

        def denoise(z: Tensor, t: int) -> tuple[Tensor, Tensor]:
            steps = torch.full((len(z),), t, device=device)
            return self.setting.process.estimate(self.denoiser(z, steps, condition).float(), z, steps)

        return sampler(denoise, self.setting.process, noise.normal(*shape).to(device), noise)

    @torch.inference_mode()
    def predict(self, batch: Batch, n: int, seed: int, sampler: Sampler | None = None) -> Tensor:
        """n masks for each image: probabilities (B, n, H, W). Sample k depends on the seed, the case's id and k alone."""
        condition = [c.repeat_interleave(n, dim=0) for c in self.condition(batch.image)]
        noise = SampleNoise(seed, batch.ids, n)
        height, width = (side // self.mask_codec.factor for side in batch.image.shape[-2:])
        shape = torch.Size((self.mask_codec.latent, height, width))
        z = self.sample(condition, noise, shape, sampler or self.setting.sampler)
        masks = torch.cat([self.mask_codec.decode(some) for some in z.split(DECODED_AT_ONCE)])
        return masks.reshape(len(batch.image), n, *batch.image.shape[-2:])


@dataclass(frozen=True)
class OneToOne:
    """A network that gives one answer, trained with Dice + cross-entropy unless told otherwise."""

    network: Network = UNet()
    loss: Loss = Dice(cross_entropy=1.0)
    target: Target = "consensus"

    def build(self, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting) -> "NetworkSegmenter":
        return NetworkSegmenter(self, channels)


class NetworkSegmenter(nn.Module):
    """See `OneToOne`. For n > 1 it answers n of the eight flips and quarter turns, so that count alone wins nothing."""

    def __init__(self, setting: OneToOne, channels: int) -> None:
        super().__init__()
        self.setting, self.network = setting, setting.network.build(channels)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        mask = training_target(batch.truth(), self.setting.target, batch.noise.uniform(len(batch.image)))
        return {"loss": supervised(self.setting.loss, self.network(batch.image), mask)}

    @torch.inference_mode()
    def predict(self, batch: Batch, n: int, seed: int, sampler: Sampler | None = None) -> Tensor:
        """Probabilities (B, n, H, W); deterministic, so neither seed nor sampler matters."""
        passes = [
            quarter_turn_back(self.setting.loss.probability(answer(self.network(quarter_turn(batch.image, k)))), k)
            for k in range(n)
        ]
        return torch.cat(passes, dim=1)


SegmenterSetting = LatentDiffusion | OneToOne | ProbUNet
