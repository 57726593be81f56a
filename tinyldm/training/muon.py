"""Muon: momentum whose matrices are made orthogonal before they are applied.

Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024),
https://kellerjordan.github.io/posts/muon. The momentum of a hidden layer is dominated by a few
directions. With U S V^T its singular value decomposition, a step along U V^T moves the layer's
outputs by as much in all the other directions, and they learn as fast.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinyldm.processes import ALONE, Processes

QUINTIC = (3.4445, -4.7750, 2.0315)
"""a, b, c of the iteration s -> a s + b s^3 + c s^5 that Jordan chose for its steep start."""


def hidden_weights(network: nn.Module) -> list[Tensor]:
    """The weights that Muon is made for: those of linear and convolution layers between layers.

    Left out are the first and the last of them, in the order of the module's parameters, and all
    that has "emb" in its name. Embeddings are tables, and what follows an embedding of the time
    sees one vector a sample, so that its gradient has hardly a direction besides the few that
    matter.
    """
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    weights = []
    for name, module in network.named_modules():
        if isinstance(module, layers):
            weights.append((name, module.weight))
    inner = weights[1:-1]
    return [weight for name, weight in inner if "emb" not in name and weight.requires_grad]


class Muon(torch.optim.Optimizer):
    """W <- (1 - lr weight_decay) W - lr scale(W) orthogonalised(Nesterov momentum).

    params:    weights of layers, (out, in) or (out, in, ...), or groups of them; a convolution is
               the matrix (out, in x kernel) by which it multiplies each patch
    processes: those that train the same weights, with the same gradients; each makes its share of
               the matrices orthogonal and hands them to the others. All keep all momenta

    With orthogonal updates, lr is the largest relative change of a layer's output in a step, up to
    the size of its input. scale(W) = sqrt(max(1, out / in)) keeps that so for layers that widen:
    of the root mean squares of input and output, an orthogonal (out, in) with out > in divides the
    first by sqrt(out / in).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations: int = 4,
        processes: Processes = ALONE,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "iterations": iterations,
        }
        super().__init__(params, defaults)
        self.processes = processes

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update each weight that has a gradient. closure: not used."""
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            momenta = [self.momentum_of(p) for p in weights]
            gradients = [p.grad for p in weights]
            mu = group["momentum"]
            torch._foreach_lerp_(momenta, gradients, 1 - mu)
            nesterov = torch._foreach_lerp(gradients, momenta, mu)
            matrices = [direction.flatten(1) for direction in nesterov]
            updates = orthogonalised_by(self.processes, matrices, group["iterations"])
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            for p, update in zip(weights, updates, strict=True):
                rows, columns = update.shape
                scale = max(1, rows / columns) ** 0.5
                p.add_(update.view_as(p), alpha=-group["lr"] * scale)

    def momentum_of(self, p: Tensor) -> Tensor:
        """The running mean of a weight's gradient; zero at first."""
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        momentum: Tensor = state["momentum"]
        return momentum


def orthogonalised_by(
    processes: Processes, matrices: list[Tensor], iterations: int
) -> list[Tensor]:
    """orthogonalised() of matrices that are the same in all processes, which divide the work."""
    if processes.world == 1 or not matrices:
        return orthogonalised(matrices, iterations)
    shares = shared_out(matrices, processes.world, iterations)
    own = orthogonalised([matrices[k] for k in shares[processes.rank]], iterations)
    lengths = [sum(matrices[k].numel() for k in share) for share in shares]
    flat = torch.cat([matrices[0].new_empty(0), *(update.flatten() for update in own)])
    updates = list(matrices)
    for share, vector in zip(shares, processes.exchanged(flat, lengths), strict=True):
        parts = vector.split([matrices[k].numel() for k in share])
        for k, part in zip(share, parts, strict=True):
            updates[k] = part.view_as(matrices[k])
    return updates


def shared_out(matrices: Sequence[Tensor], world: int, iterations: int) -> list[list[int]]:
    """The numbers of the matrices that each process takes: about as much work for each.

    The largest first, each to the process that has least to do so far.
    """
    work = [multiplications(m, iterations) for m in matrices]
    shares: list[list[int]] = [[] for _ in range(world)]
    loads = [0] * world
    for k in sorted(range(len(work)), key=lambda k: (-work[k], k)):
        least = loads.index(min(loads))
        shares[least].append(k)
        loads[least] += work[k]
    return shares


def multiplications(matrix: Tensor, iterations: int) -> int:
    """How many multiplications orthogonalised() needs for a matrix."""
    n, m = sorted(matrix.shape)
    return n * n * (2 * m + (4 * iterations - 3) * n)  # with X; of Gram matrices


def orthogonalised(matrices: list[Tensor], iterations: int) -> list[Tensor]:
    """About U V^T of each matrix U S V^T: its singular values become 0.7 to 1.2.

    Singular values below some thousandth of the largest become less than that.

    An iteration X <- a X + b (X X^T) X + c (X X^T)^2 X is X <- P X with P = a + b A + c A^2 of the
    Gram matrix A = X X^T, and A becomes P A P = P^2 A, since P is a polynomial of A. So it is
    enough to iterate the Gram matrix, on the smaller side of X, and to apply the product of all P
    at the end: for a convolution of 160 to 160 channels, a third of the work. All matrices with
    the same smaller side go through it together.
    """
    wide = [m if m.shape[0] <= m.shape[1] else m.T for m in matrices]
    same_side: dict[int, list[int]] = defaultdict(list)
    for k, m in enumerate(wide):
        same_side[m.shape[0]].append(k)
    updates = list(matrices)
    for indices in same_side.values():
        gram = torch.stack([wide[k] @ wide[k].T for k in indices])
        for k, root in zip(indices, inverse_root(gram, iterations), strict=True):
            update = root @ wide[k]
            updates[k] = update if matrices[k].shape == update.shape else update.T
    return updates


def inverse_root(gram: Tensor, iterations: int) -> Tensor:
    """About A^(-1/2) of each Gram matrix (k, n, n): what makes X orthogonal when A = X X^T.

    The iteration needs singular values of X of at most 1. (tr A^4)^(1/8) is a bound on the largest
    that A^2, which the first iteration needs anyway, gives for nothing. It is closer to it than the
    usual bound, the norm of X, (tr A)^(1/2), so that four iterations do nearly the work of five.
    """
    a, b, c = QUINTIC
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    tiny = torch.finfo(gram.dtype).tiny  # for A = 0, which stays 0
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] + tiny
    gram = gram / trace
    square = gram @ gram
    bound = square.norm(dim=(-2, -1), keepdim=True).sqrt()  # on the eigenvalues of A
    bound = bound.clamp(min=1 / gram.shape[-1])  # no bound but that of A = 0 is less
    gram, square = gram / bound, square / bound / bound
    root = identity
    for k in range(iterations):
        if k > 0:
            square = gram @ gram
        p = a * identity + b * gram + c * square
        root = p if k == 0 else p @ root
        if k < iterations - 1:
            gram = p @ (p @ gram)
    return root / trace.sqrt() / bound.sqrt()
