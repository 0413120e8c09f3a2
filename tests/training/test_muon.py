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
    matrix = drawn(12, 40).double()
    assert torch.allclose(orthogonalized(matrix, iterations), by_definition(matrix, iterations), atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 100), (100, 16), (32, 32)])
def test_five_iterations_bring_the_singular_values_near_one(shape: tuple[int, int]) -> None:
    left, _, right = torch.linalg.svd(
        torch.randn(shape, generator=torch.Generator().manual_seed(1)), full_matrices=False
    )
    spread = torch.linspace(0.05, 1, min(shape))
    values = torch.linalg.svdvals(orthogonalized((left * spread) @ right, 5))
    assert values.min() > 0.6
    assert values.max() < 1.25


def test_an_orthogonalised_matrix_keeps_its_singular_vectors() -> None:
    left, values, right = torch.linalg.svd(
        torch.randn(8, 20, generator=torch.Generator().manual_seed(2)), full_matrices=False
    )
    result = left.T @ orthogonalized((left * values) @ right, 3) @ right.T
    assert torch.allclose(result, torch.diag(result.diagonal()), atol=1e-4)


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


def test_memory_format_does_not_change_the_step() -> None:
    torch.manual_seed(0)
    weight, gradient = torch.randn(8, 4, 3, 3), torch.randn(8, 4, 3, 3)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        filters = nn.Parameter(weight.clone(memory_format=layout))
        filters.grad = gradient.clone(memory_format=layout)
        Muon([filters], lr=0.2, momentum=0.6, iterations=3).step()
        results.append(filters.detach())
    assert torch.allclose(results[0], results[1], atol=1e-6)


def test_a_restored_optimizer_goes_on_with_the_same_steps() -> None:
    torch.manual_seed(0)
    first, second = (nn.Parameter(torch.ones(4, 2, 3, 3)) for _ in range(2))
    gradients = [torch.randn(4, 2, 3, 3) for _ in range(4)]
    optimizer = Muon([first], lr=0.1, momentum=0.6, iterations=3)
    for gradient in gradients[:2]:
        first.grad = gradient
        optimizer.step()
    restored = Muon([second], lr=0.1, momentum=0.6, iterations=3)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    second.data.copy_(first.data)
    for gradient in gradients[2:]:
        first.grad = second.grad = gradient
        optimizer.step()
        restored.step()
    assert torch.equal(first, second)
