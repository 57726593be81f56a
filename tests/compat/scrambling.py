"""Networks whose weights are far from where they start."""

import torch


def scrambled(network, seed):
    """The network with every weight, norm and bias far from its first value."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            size = 1 / p[0].numel() ** 0.5 if p.ndim > 1 else 0.4
            p.copy_(torch.randn(p.shape, generator=g) * size + (p.ndim == 1 and "norm" in name))
    return network.eval()
