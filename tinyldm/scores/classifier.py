"""How small classifiers are trained: the judges of tasks, and the reader of toy monsters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from tinyldm.device import runs_bfloat16


def train(
    network: nn.Module,
    draw_batch: Callable[[torch.Generator], tuple[Tensor, Tensor]],
    loss: Callable[..., Tensor],
    *,
    steps: int,
    lr: float,
    warmup: float = 0.1,
    seed: int = 0,
    title: str = "classifier",
) -> nn.Module:
    """Train a network, on the device where it is, with AdamW and one cycle of the learning rate.

    draw_batch: a generator of random numbers -> images (b, 3, h, w) in [-1, 1], and the truth
    loss:       (what the network makes of the images, truth) -> scalar
    lr:         the highest learning rate, reached after the share `warmup` of the steps
    Returns the network, in eval mode.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(network.parameters()).device
    bfloat16 = runs_bfloat16(device, "auto")
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=warmup)
    progress = tqdm(range(steps), title, unit="step")
    for step in progress:
        images, truth = draw_batch(generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            output = network(images.to(device))
        error = loss(output, truth.to(device))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        rate.step()
        if step % 20 == 0:
            progress.set_postfix(loss=f"{error.item():.4f}")
    return network.eval()
