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
from manymask.errors import UserError
from manymask.guidance import NullLatent, PairClassifier, classifier_free, classifier_guided
from manymask.losses import Dice, Loss
from manymask.networks import Network, UNet, answer, supervised
from manymask.noise import SampleNoise
from manymask.prob_unet import ProbUNet
from manymask.process import Diffusion, Process
from manymask.samplers import DDIM, Denoise, Sampler, check_fit

DECODED_AT_ONCE = 16  # masks; the decoder's feature maps are the largest of all


@dataclass(frozen=True)
class LatentDiffusion:
    """The paper's segmenter (Section III-C): a conditional diffusion of mask latents.

    noise_levels: how many (t, ε) are drawn for each image of a batch, since its condition is encoded but once;
    train_image_codec: whether the image encoder, started from the codec, is trained along; target: which of several
    readers' masks is learnt, their consensus or one at random.

    drop_condition: share of images that are hidden in training, which `guidance` ≠ 1 needs: the scale of classifier-free
    guidance when masks are drawn; classifier: trained along, and pulls by its own scale (see `guidance.py`).
    """

    denoiser: Denoiser = ConcatUNet()
    process: Process = Diffusion()
    sampler: Sampler = DDIM()
    target: Target = "consensus"
    noise_levels: int = 1
    train_image_codec: bool = False
    drop_condition: float = 0.0
    guidance: float = 1.0
    classifier: PairClassifier | None = None

    def build(self, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting) -> "DiffusionSegmenter":
        return DiffusionSegmenter(self, channels, image_codec, mask_codec)


class DiffusionSegmenter(nn.Module):
    """See `LatentDiffusion`. The parts are `image_codec`, `mask_codec` (frozen) and `denoiser`; for guidance, `null` and
    `classifier`."""

    def __init__(
        self, setting: LatentDiffusion, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting
    ) -> None:
        super().__init__()
        self.setting = setting
        self.image_codec, self.mask_codec = image_codec.build(), mask_codec.build()
        self.denoiser = setting.denoiser.build(channels, self.image_codec, self.mask_codec)
        if self.image_codec.factor != self.mask_codec.factor:
            raise UserError(f"the codecs shrink by {self.image_codec.factor} and {self.mask_codec.factor}: must agree")
        check_fit(setting.sampler, setting.process)
        latents = self.image_codec.latent, self.mask_codec.latent
        self.null = NullLatent(latents[0]) if setting.drop_condition else None
        self.classifier = setting.classifier.build(*latents) if setting.classifier else None
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
        hidden = batch.noise.uniform(len(batch.image)) < setting.drop_condition if self.null else None
        condition = [c.repeat_interleave(k, dim=0) for c in self.condition(batch.image, hidden)]
        t = setting.process.draw_times(batch.noise, len(z0)).to(z0.device)
        epsilon = batch.noise.normal(*z0.shape).to(z0)
        z = setting.process.corrupt(z0, epsilon, t)
        output = self.denoiser(z, setting.process.clock(t), condition).float()
        loss = F.mse_loss(output, setting.process.target(z0, epsilon, t))
        if self.classifier is None:
            return {"loss": loss}
        pairs = self.classifier.loss(z[::k], setting.process.clock(t)[::k], self._z_image(batch.image).detach())
        return {"loss": loss + pairs, "denoising": loss.detach(), "classifier": pairs.detach()}

    def _z_image(self, image: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.setting.train_image_codec and torch.is_grad_enabled()):
            return self.image_codec.encode(image)

    def condition(self, image: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        """What the denoiser is told of the image, nothing in rows that are `hidden` (B,); runs once however many samples
        are drawn."""
        z_image = self._z_image(image)
        if self.null is not None and hidden is not None:
            image, z_image = self.null(image, z_image, hidden)
        return self.denoiser.condition(image, z_image)

    def denoise(self, image: Tensor, n: int) -> Denoise:
        """(z_t, t) → (ẑ_0, ε̂) for n samples of each image, in case-major order, guided as the setting says."""
        setting = self.setting
        denoise = self._told(self.condition(image), n)
        if setting.guidance != 1:
            if self.null is None:
                raise UserError("guidance needs a model that was trained with drop_condition above 0")
            blind = self.condition(image, torch.ones(len(image), dtype=torch.bool))
            denoise = classifier_free(denoise, self._told(blind, n), setting.guidance)
        if self.classifier is not None and setting.classifier and setting.classifier.scale:
            z_image = self._z_image(image).repeat_interleave(n, dim=0)
            denoise = classifier_guided(denoise, self.classifier, z_image, setting.process, setting.classifier.scale)
        return denoise

    def _told(self, condition: list[Tensor], n: int) -> Denoise:
        repeated, process = [c.repeat_interleave(n, dim=0) for c in condition], self.setting.process

        def denoise(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
            times = torch.full((len(z),), t, device=z.device)
            return process.estimate(self.denoiser(z, process.clock(times), repeated).float(), z, times)

        return denoise

    def sample(self, denoise: Denoise, noise: SampleNoise, shape: torch.Size, sampler: Sampler) -> Tensor:
        """Mask latents (B · n, c, h, w) from noise."""
        check_fit(sampler, self.setting.process)
        start = noise.normal(*shape).to(next(self.denoiser.parameters()).device)
        return sampler(denoise, self.setting.process, start, noise)  # type: ignore[arg-type]

    @torch.inference_mode()
    def predict(self, batch: Batch, n: int, seed: int, sampler: Sampler | None = None) -> Tensor:
        """n masks for each image: probabilities (B, n, H, W). Sample k depends on the seed, the case's id and k alone."""
        height, width = (side // self.mask_codec.factor for side in batch.image.shape[-2:])
        shape = torch.Size((self.mask_codec.latent, height, width))
        noise = SampleNoise(seed, batch.ids, n)
        z = self.sample(self.denoise(batch.image, n), noise, shape, sampler or self.setting.sampler)
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
