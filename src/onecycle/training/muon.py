"""Muon: momentum whose update of every convolution is orthogonalised."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Of a·x + b·x³ + c·x⁵: lifts small singular values fastest, while all stay between 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised for parameters of four dimensions, plain for all others.

    The filters of a convolution, as a matrix [out, in·kh·kw], keep the norm √out; a step moves them by `lr` times the
    nearest semi-orthogonal matrix to their momentum, so that `lr` is a relative change. A norm layer must follow them:
    their scale then has no effect, and `weight_decay`, which could only change that scale, is not applied to them. The
    others take a step of SGD with Nesterov momentum and weight decay.

    Sources: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the normalised filters are
    those of KellerJordan/cifar10-airbench.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, momentum: float, iterations: int, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.iterations = iterations

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; returns what `closure` returns."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group["lr"], group["momentum"], group["weight_decay"])
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, lr: float, momentum: float, weight_decay: float) -> None:
        is_convolution = parameter.dim() == 4
        if not is_convolution:
            gradient = gradient.add(parameter, alpha=weight_decay)
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].mul_(momentum).add_(gradient)
        update = gradient.add(buffer, alpha=momentum)
        if is_convolution:
            # The order of the columns does not matter: channels last needs no copy.
            columns = update.permute(0, 2, 3, 1)
            update = orthogonalized(columns.flatten(1), self.iterations).view(columns.shape).permute(0, 3, 1, 2)
            parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
        parameter.add_(update, alpha=-lr)


def orthogonalized(matrix: Tensor, iterations: int) -> Tensor:
    """About U·Vᵀ of `matrix` = U·Σ·Vᵀ, of shape [m, n]: every singular value moves to between 0.7 and 1.2.

    That takes about five iterations; after fewer, small singular values are still below. Each iteration is
    X ← (a + b·G + c·G²)·X with G = X·Xᵀ. As these factors commute with G, their product is formed on the smaller side,
    and X is multiplied once.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalized(matrix.T, iterations).T
    a, b, c = COEFFICIENTS
    matrix = matrix / (matrix.norm() + 1e-7)
    gram = matrix @ matrix.T
    product = identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(iterations):
        factor = a * identity + b * gram + c * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor
    return product @ matrix
