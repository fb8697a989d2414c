"""A mask head on the denoiser's image features, supervised directly, whose prediction the denoiser receives.

The denoising loss alone teaches the image encoder slowly: at low noise the answer is in z_t already. A head that predicts
the mask from the image gives the encoder a gradient in every step and at full resolution. The denoiser then receives the
predicted mask as a latent and adds what one prediction cannot hold: how plausible masks differ.

The head can also have a share in what is drawn (`head_share`): each drawn mask m_k becomes (1 − w) m_k + w a, where a is the
head's map of the same view. Below w = ½ a mask that is sure of itself keeps its outline, and the mean of the masks becomes that
of two predictors of the same image whose errors differ: those of the denoiser and those of the head.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from manymask.errors import ConfigError
from manymask.models.autoencoder import Coder
from manymask.models.conditioning import feature_channels
from manymask.nn.blocks import ResBlock, Upsample, output_head

WIDTHS = (16, 32)  # channels at each resolution above that of the latents, finest first; the last one repeats


class AuxiliaryHead(nn.Module):
    """A mask head from the features at latent resolution up to the finest map of the encoder.

    Args:
        channels: of the features at latent resolution H/f.
        finer: channels of the encoder's maps above that resolution, finest first; each has twice the side of the next.
        factor: f.
        mask_latent: channels of the mask latent.
    """

    def __init__(self, channels: int, finer: Sequence[int], factor: int, mask_latent: int) -> None:
        super().__init__()
        widths = [WIDTHS[min(i, len(WIDTHS) - 1)] for i in range(len(finer))]
        self.factor = factor // 2 ** len(finer)
        self.up = nn.ModuleList(Upsample(b, a) for a, b in zip(widths, [*widths, channels][1:], strict=True))
        self.lateral = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(finer, widths, strict=True))
        self.blocks = nn.ModuleList(ResBlock(width, width) for width in widths)
        self.head = output_head(widths[0] if widths else channels, 1)
        self.mix = nn.Conv2d(mask_latent, channels, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]

    @classmethod
    def on(cls, denoiser: nn.Module, mask_codec: Coder) -> "AuxiliaryHead":
        """The head for a denoiser and the codec of its latents.

        Args:
            denoiser: the denoiser.
            mask_codec: the codec of the mask latents.

        Returns:
            The untrained head.

        Raises:
            ConfigError: the denoiser has no features of the image.
        """
        finer: tuple[int, ...] = getattr(denoiser, "finer", ())
        return cls(feature_channels(denoiser)[0], finer, mask_codec.factor, mask_codec.latent_channels)

    def forward(self, finer: Sequence[Tensor], feature: Tensor) -> Tensor:
        """Predict a mask.

        Args:
            finer: the encoder's maps above latent resolution, finest first, (B, finer[i], H_i, W_i).
            feature: (B, channels, H/f, W/f).

        Returns:
            Logits (B, 1, H, W).
        """
        x = feature
        for up, lateral, block, given in reversed(list(zip(self.up, self.lateral, self.blocks, finer, strict=True))):
            x = block(up(x) + lateral(given))
        return F.interpolate(self.head(x), scale_factor=float(self.factor), mode="bilinear", align_corners=False)

    def inform(self, feature: Tensor, z_mask: Tensor) -> Tensor:
        """Add the predicted mask to the features; an untrained head adds nothing.

        Args:
            feature: (B, channels, h, w).
            z_mask: the latent of the predicted mask (B, c, h, w).

        Returns:
            Features (B, channels, h, w).
        """
        result: Tensor = feature + self.mix(z_mask)
        return result


def check_share(share: float | None, head: nn.Module | None) -> None:
    """Check that there is a head to take a share from.

    Args:
        share: w in [0, 1]; None or 0 takes none.
        head: the auxiliary mask head.

    Raises:
        ConfigError: there is none.
    """
    if share and head is None:
        raise ConfigError(
            "head_share: there is no auxiliary mask head to take a share from (`auxiliary`)", parameter="head_share"
        )


def blend(drawn: Tensor, head: Tensor | None, share: float | None) -> Tensor:
    """Drawn masks in which an auxiliary head has its share.

    Args:
        drawn: masks in [0, 1], any shape.
        head: a map in [0, 1] for each of them, with as many values in the same order; None without a share.
        share: w in [0, 1]; not read without a map.

    Returns:
        (1 − w) · drawn + w · head.
    """
    return drawn if head is None else drawn.lerp(head.reshape(drawn.shape).to(drawn), share or 0.0)
