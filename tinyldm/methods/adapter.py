"""Adapter: something small that is trained on top of a network which stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn


class Kept:
    """Holds a module that is no part of its holder: never trained, averaged, copied or saved."""

    def __init__(self, module: nn.Module):
        self.module = module.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return self


class Adapter(nn.Module):
    """A denoiser made of a frozen network, `base`, and parameters of its own, which are trained.

    parameters() and state_dict() are the adapter's own. A copy of it, such as the average of a
    training, shares the base, and to() moves the base along. From here on, the base needs no
    gradients and is in eval mode.
    """

    def __init__(self, base: nn.Module):
        super().__init__()
        self._kept = Kept(base)

    @property
    def base(self) -> nn.Module:
        """The network underneath."""
        return self._kept.module

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What nn.Module calls for to(), float(), cuda(): for the base as well."""
        self.base._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def spec(self) -> dict[str, Any]:
        """What a checkpoint says of the adapter, so that it can be built again on its base."""
        raise NotImplementedError

    def ready(self, scale: float = 1.0) -> nn.Module:
        """The network to draw with. scale: how much of the adapter counts, 0 is the base."""
        raise NotImplementedError
