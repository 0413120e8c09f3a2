import copy

import pytest
import torch
from torch import Tensor, nn

from onecycle.training.muon import COEFFICIENTS, Muon, orthogonalized


def by_definition(matrix: Tensor, iterations: int) -> Tensor:
    """The iteration as it is published: X ← aX + (bG + cG²)X with G = XXᵀ."""
    a, b, c = COEFFICIENTS
    x = matrix / matrix.norm()
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def drawn(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_the_iteration_on_the_gram_matrix_is_the_published_one(iterations: int) -> None:
    matrices = [drawn(12, 40).double(), 3 * drawn(40, 12).double().T]
    found = orthogonalized(torch.stack(matrices), iterations)
    for matrix, result in zip(matrices, found, strict=True):
        assert torch.allclose(result, by_definition(matrix, iterations), atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 100), (100, 16), (32, 32)])
def test_five_iterations_keep_the_singular_vectors_and_bring_the_values_near_one(shape: tuple[int, int]) -> None:
    left, _, right = torch.linalg.svd(drawn(*shape), full_matrices=False)
    matrix = (left * torch.linspace(0.05, 1, min(shape))) @ right
    result = left.T @ orthogonalized(matrix[None], 5)[0] @ right.T
    values = result.diagonal()
    assert torch.allclose(result, torch.diag(values), atol=1e-3)
    assert values.min() > 0.6
    assert values.max() < 1.25


def test_filters_keep_their_norm_and_move_by_the_learning_rate() -> None:
    torch.manual_seed(0)
    filters = nn.Parameter(torch.randn(16, 8, 3, 3) * 5)
    optimizer = Muon([filters], lr=0.1, momentum=0.6, iterations=5, weight_decay=0.1)
    filters.grad = torch.randn_like(filters)
    optimizer.step()
    before = filters.detach().clone()
    optimizer.step()
    rescaled = before * 16**0.5 / before.norm()
    assert filters.detach().sub(rescaled).norm().item() == pytest.approx(0.1 * 16**0.5, rel=0.2)
    assert filters.norm().item() == pytest.approx(16**0.5, rel=0.15)


def test_all_other_parameters_take_a_step_of_nesterov_sgd() -> None:
    torch.manual_seed(0)
    ours = nn.Linear(5, 3)
    theirs = copy.deepcopy(ours)
    optimizers = [
        Muon(ours.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, iterations=3),
        torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    ]
    for _ in range(4):
        x = torch.randn(7, 5)
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            network(x).pow(2).sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-6)
