"""Muon for the layers' matrices, AdamW for the embedding and the norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

# Odd quintic polynomials in the style of Amsel et al. (2025), "The Polar Express". These four were fitted here to take
# singular values from 0.003 to 1 near one (between 0.76 and 1.16) and cost four fifths of the five equal steps of
# Jordan et al. (2024).
COEFFICIENTS = (
    (8.2706, -23.6112, 17.2858),
    (4.0353, -2.9607, 0.5536),
    (3.3949, -2.4674, 0.4853),
    (2.3436, -1.6506, 0.3907),
)


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Each of ``matrices`` (``[N, R, C]``) with its singular values moved near one.

    Those above 0.003 of the Frobenius norm end between 0.75 and 1.17; smaller ones are raised up to 265-fold.
    """
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) * 1.01 + 1e-7)
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT
    for a, b, c in COEFFICIENTS:
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    out: torch.Tensor = x.mT if tall else x
    return out


class Muon(torch.optim.Optimizer):
    """Momentum steps made orthogonal, in the parameters' own dtype; matrices of one shape are treated as one stack.

    Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks". ``torch.optim.Muon`` computes in
    bfloat16, which a CPU without bfloat16 units does many times slower.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.1
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix from its gradient."""
        assert closure is None
        for group in self.param_groups:
            stacks: dict[torch.Size, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                stacks.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in stacks.items():
                directions = orthogonalised(torch.stack([self._direction(p, group["momentum"]) for p in parameters]))
                length = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.mul_(1 - group["lr"] * group["decay"]).add_(direction, alpha=-length)

    def _direction(self, parameter: torch.Tensor, momentum: float) -> torch.Tensor:
        """Nesterov momentum of the parameter's gradient."""
        state: dict[str, Any] = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        running: torch.Tensor = state["momentum"].mul_(momentum).add_(parameter.grad)
        return parameter.grad + momentum * running


def make_optimizers(network: nn.Module, matrix_rate: float, rate: float) -> list[torch.optim.Optimizer]:
    """Muon on the layers' matrices at ``matrix_rate`` and AdamW on all else at ``rate``; groups keep it as ``peak``."""
    named = dict(network.named_parameters())
    matrices = [p for name, p in named.items() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named.items() if p.ndim != 2 or "embed" in name]
    optimizers = [
        Muon(matrices, lr=matrix_rate),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers
