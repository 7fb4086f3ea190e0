"""Optimisers that torch lacks: Lion and LAMB, whose steps can be recorded as CUDA graphs."""

# Written here because a recorded step needs the rate in a tensor and no branch on a value of the device; the packages
# that offer these optimisers take the rate as a number (lion-pytorch) or branch on norms (pytorch-optimizer).

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class _Optimizer(torch.optim.Optimizer):
    """Moves each parameter that has a gradient by a formula of its own."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ANN401
        """Take one step with the gradients that the parameters hold."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, self.state[parameter], group)

    @abstractmethod
    def _move(self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """Change a parameter and its state in place, as the paper's formula says."""


class Lion(_Optimizer):
    """Moves each weight by the sign of an interpolated momentum (Chen et al., NeurIPS 2023, algorithm 2).

    With c = β1 m + (1 - β1) g: θ ← θ - η (sign(c) + λ θ), then m ← β2 m + (1 - β2) g.

    Args:
        parameters: the trained parameters.
        lr: η, a number or a tensor on the parameters' device; a tenth of AdamW's is usual.
        betas: β1 and β2.
        weight_decay: λ, decoupled from the gradient.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        lr: float | Tensor,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def _move(self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
        direction = torch.lerp(gradient, state["exp_avg"], beta1).sign()
        parameter.sub_((direction + group["weight_decay"] * parameter) * group["lr"])
        state["exp_avg"].lerp_(gradient, 1 - beta2)


class Lamb(_Optimizer):
    """Scales Adam's step of each tensor to the norm of its weights (You et al., ICLR 2020, algorithm 2).

    With Adam's bias-corrected averages m and v, and r = m / (sqrt(v) + ε) + λ θ: θ ← θ - η (‖θ‖ / ‖r‖) r. The ratio
    is 1 if either norm is 0.

    Args:
        parameters: the trained parameters; each tensor is a layer of the paper.
        lr: η, a number or a tensor on the parameters' device.
        betas: factors of the two averages.
        eps: ε.
        weight_decay: λ.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        lr: float | Tensor,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        # capturable: torch then restores the step counter of a stored state to the parameters' device.
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "capturable": True}
        super().__init__(parameters, settings)

    def _move(self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        (beta1, beta2), mean, square = group["betas"], state["exp_avg"], state["exp_avg_sq"]
        state["step"].add_(1)
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # expm1: in float32, 1 - β^step would lose four digits at the first steps.
        corrections = [-torch.expm1(state["step"].to(parameter.dtype) * math.log(beta)) for beta in (beta1, beta2)]
        direction = (mean / corrections[0]) / ((square / corrections[1]).sqrt() + group["eps"])
        direction = direction + group["weight_decay"] * parameter
        weight_norm, norm = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(direction)
        # torch.where and no branch: a branch would wait for the GPU, which no recording allows.
        ratio = torch.where((weight_norm > 0) & (norm > 0), weight_norm / norm, torch.ones_like(norm))
        parameter.sub_(direction * (ratio * group["lr"]))
