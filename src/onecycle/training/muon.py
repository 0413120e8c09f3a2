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
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            for convolutions in (True, False):
                parameters = [parameter for parameter in trained if (parameter.dim() == 4) == convolutions]
                if parameters:
                    self._update(parameters, convolutions, group["lr"], group["momentum"], group["weight_decay"])
        return loss

    def _update(
        self, parameters: list[Tensor], convolutions: bool, lr: float, momentum: float, weight_decay: float
    ) -> None:
        """All at once, and equal shapes as one batch of matrices: on a GPU a call costs more than what it computes."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not convolutions and weight_decay:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=weight_decay))
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        updates = list(torch._foreach_add(gradients, buffers, alpha=momentum))
        if convolutions:
            scales = list(torch._foreach_norm(parameters))
            torch._foreach_reciprocal_(scales)
            torch._foreach_mul_(scales, [len(parameter) ** 0.5 for parameter in parameters])
            torch._foreach_mul_(parameters, scales)
            by_shape: dict[torch.Size, list[int]] = {}
            for index, update in enumerate(updates):
                by_shape.setdefault(update.shape, []).append(index)
            for indices in by_shape.values():
                # The order of the columns does not matter: channels last needs no copy.
                stacked = torch.stack([updates[index].permute(0, 2, 3, 1) for index in indices])
                matrices = orthogonalized(stacked.flatten(2), self.iterations).view(stacked.shape)
                for index, matrix in zip(indices, matrices.permute(0, 1, 4, 2, 3), strict=True):
                    updates[index] = matrix
        torch._foreach_mul_(updates, lr)  # a tensor in a CUDA graph, which no `alpha` may be
        torch._foreach_sub_(parameters, updates)


def orthogonalized(matrices: Tensor, iterations: int) -> Tensor:
    """About U·Vᵀ of each matrix = U·Σ·Vᵀ, of shape [k, m, n]: every singular value moves to between 0.7 and 1.2.

    That takes about five iterations; after fewer, small singular values are still below. Each iteration is
    X ← (a + b·G + c·G²)·X with G = X·Xᵀ. As these factors commute with G, their product is formed on the smaller side,
    and X is multiplied once.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalized(matrices.mT, iterations).mT
    matrices = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = matrices @ matrices.mT
    product = factor = _factor(gram)
    for _ in range(iterations - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        product = factor @ product
    return product @ matrices


def _factor(gram: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor
