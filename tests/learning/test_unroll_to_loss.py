"""The backward recursion of `unroll_to_loss`: against one graph of all steps, and what it holds at once."""

import weakref

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from harness import Step, Student, unroll_to_loss

SIZES = torch.tensor([0.3, 0.05, 0.7, 0.2, 0.4, 0.1, 0.6, 0.2], dtype=torch.float64)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


@pytest.fixture
def scene():
    net, generator = network(), torch.Generator().manual_seed(1)
    images = torch.randn(6, 1, 2, 3, generator=generator, dtype=torch.float64)
    real = torch.randn(9, 1, 2, 3, generator=generator, dtype=torch.float64)
    return Student(net, {}, torch.arange(3).repeat(2)), images, real, torch.arange(9) % 3


def steps(count):
    """Two steps that own three images each, in turn."""
    return [Step(torch.arange(3) + 3 * (number % 2), torch.clone) for number in range(count)]


def final(student, real, labels):
    def loss(weights):
        leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        value = functional.cross_entropy(functional_call(student.network, leaves, (real,)), labels)
        return value, torch.autograd.grad(value, list(leaves.values()))

    return loss


def start(student):
    return {name: weight.detach() for name, weight in student.network.named_parameters()}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_it_is_the_gradient_of_one_graph(scene, count):
    student, images, real, labels = scene
    answer = unroll_to_loss(student, start(student), images, SIZES[:count], steps(count), final(student, real, labels))

    leaf, sizes = images.clone().requires_grad_(), SIZES[:count].clone().requires_grad_()
    weights = {name: weight.requires_grad_() for name, weight in start(student).items()}
    for size, step in zip(sizes, steps(count), strict=True):
        loss = functional.cross_entropy(
            functional_call(student.network, weights, (leaf[step.index],)), student.labels[step.index]
        )
        gradient = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        weights = {name: weight - size * part for (name, weight), part in zip(weights.items(), gradient, strict=True)}
    loss = functional.cross_entropy(functional_call(student.network, weights, (real,)), labels)
    of_images, of_sizes = torch.autograd.grad(loss, (leaf, sizes))
    assert float(answer.loss) == pytest.approx(float(loss.detach()), rel=1e-12)
    torch.testing.assert_close(answer.images, of_images, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(answer.step_sizes, of_sizes, rtol=1e-9, atol=1e-13)
    for name, weight in answer.weights.items():
        torch.testing.assert_close(weight, weights[name].detach())


def test_the_graphs_at_once_do_not_grow_with_the_steps(scene):
    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor

    student, images, real, labels = scene
    most = []
    for count in (2, 8):
        alive, peak = weakref.WeakSet(), [0]

        def pack(tensor, alive=alive, peak=peak):
            saved = Saved(tensor)
            alive.add(saved)
            peak[0] = max(peak[0], len(alive))
            return saved

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
            unroll_to_loss(student, start(student), images, SIZES[:count], steps(count), final(student, real, labels))
        most.append(peak[0])
    assert most[0] == most[1] > 0
