"""What stage one may minimise besides the error of the pixels: what a critic sees, that is trained beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Critic(nn.Module):
    """A patch critic (1611.07004, sec. 3.2.2): images (b, 3, h, w) -> (b, 1, h', w'), high where they look real."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)):
        super().__init__()
        pairs = zip((3, *widths), widths)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairs)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[1:])
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def features(self, images: Tensor) -> list[Tensor]:
        """What each layer sees: (b, c, h / 2, w / 2), (b, c', h / 4, w / 4), ..."""
        seen, x = [], images
        for k, layer in enumerate(self.layers):
            x = layer(x)
            x = F.leaky_relu(self.norms[k - 1](x) if k else x, 0.2)
            seen.append(x)
        return seen

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)[-1])


def critic_loss(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """The hinge loss of the critic (1705.02894), 0 where it tells real from fake by a margin."""
    return F.relu(1 - critic(real)).mean() + F.relu(1 + critic(fake.detach())).mean()


def feature_distance(seen: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """How far features are from those wanted: the mean square, each layer in units of what is wanted there.

    With a critic's features it is the learned similarity of 1512.09300 (sec. 2.3), with a decoder's the latent
    perceptual loss of 2411.04873: no further pretrained network has a part in it.
    """
    pairs = list(zip(seen, wanted, strict=True))
    return sum((a - b).square().mean() / (b.square().mean() + 1e-6) for a, b in pairs) / len(pairs)


def decoder_features(vae, latents: Tensor) -> list[Tensor]:
    """What the decoder of an AutoencoderKL sees of latents (b, c, h, w) on the way to the image, but for the last."""
    x = vae.decoder.mid_block(vae.decoder.conv_in(vae.post_quant_conv(latents)))
    seen = [x]
    for level in vae.decoder.up_blocks[:-1]:
        x = level(x)
        seen.append(x)
    return seen


def adaptive_weight(error: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """The weight at which two losses pull equally on the decoder's last layer (2012.09841, eq. 7), at most 10^4."""
    pulls = [
        torch.autograd.grad(loss, last, retain_graph=True)[0].norm()
        for loss in (error, adversarial)
    ]
    return (pulls[0] / (pulls[1] + 1e-4)).clamp(0, 1e4).detach()
