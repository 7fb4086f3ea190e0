"""The contract of architectures."""

from collections.abc import Callable
from functools import cached_property
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor, nn

from harness.errors import DataError
from harness.testing.contract import Contract, finite, require, same_bits
from harness.testing.small import global_generators, small_problem
from harness.types.network import LAST_TAP, Architecture, Network
from harness.types.problem import Shape

SHAPES: tuple[Shape, ...] = ((3, 32, 32), (1, 28, 28), (1, 16, 16), (3, 64, 64))
ODD_SHAPES: tuple[Shape, ...] = ((1, 1, 1), (3, 7, 5), (1, 3, 40), (4, 2, 2))
CLASSES = 3


class ArchitectureContract(Contract):
    """The obligations of every architecture."""

    kind = "architecture"

    def test_features_and_classifier(self) -> None:
        """Logits (n, classes) are the classifier's of features (n, dimension), finite and float32."""
        network, images = self.network(), self.images()
        # Dropout and batch statistics would make two passes differ.
        network.eval()
        with torch.no_grad():
            features, logits = network.features(images), network(images)
            require(features.ndim == 2, f"features are {tuple(features.shape)}, not (n, dimension)")
            wanted = (len(images), CLASSES)
            require(tuple(logits.shape) == wanted, f"logits are {tuple(logits.shape)}, not {wanted}")
            require(torch.equal(network.classifier(features), logits), "classifier(features(x)) is not forward(x)")
        require(logits.dtype == torch.float32, f"logits are {logits.dtype}")
        require(finite({"logits": logits}), "logits are not finite")

    def test_taps(self) -> None:
        """Taps have unique names, are what their submodules return, (n, ...), and end with the features."""
        network, images = self.network().eval(), self.images()
        names = network.taps
        require(names[-1:] == (LAST_TAP,), f"the last tap is not {LAST_TAP!r}: taps are {names}")
        require(len(set(names)) == len(names), f"two taps have one name: {names}")
        # Copied when the submodule returns: what a later layer changes in place would differ from its copy.
        copies: dict[str, Tensor] = {}
        handles = [
            network.get_submodule(place).register_forward_hook(_copier(copies, name))
            for name, place in network._tap_places
        ]
        with torch.no_grad():
            plain = network.features(images)
            for handle in handles:
                handle.remove()
            taps = network.features(images, taps=names)
            require(torch.equal(taps[LAST_TAP], plain), f"the tap {LAST_TAP!r} is not features(x)")
            require(torch.equal(network.features(images), plain), "reading taps changes the features")
        require(tuple(taps) == names, f"features(x, taps={names}) has {tuple(taps)}")
        for name, copy in copies.items():
            shape = tuple(taps[name].shape)
            require(len(shape) > 1 and shape[0] == len(images), f"tap {name!r} is {shape}, not ({len(images)}, ...)")
            require(torch.equal(taps[name], copy), f"tap {name!r} is changed in place by a later layer")

    def test_taps_are_differentiable(self) -> None:
        """In training, too, a gradient reaches the images from every tap, and is finite."""
        network, images = self.network(), self.images().requires_grad_()
        for name, tap in network.features(images, taps=network.taps).items():
            # Squared: the mean of what a norm returns is constant.
            (gradient,) = torch.autograd.grad(tap.square().mean(), images, retain_graph=True, allow_unused=True)
            require(gradient is not None, f"no gradient of tap {name!r} reaches the images")
            require(finite({name: gradient}), f"the gradient of tap {name!r} is not finite")

    def test_in_training(self) -> None:
        """It is built in training mode, and returns finite logits there."""
        network = self.network()
        require(network.training, "it is built in evaluation mode")
        require(finite({"logits": network(self.images())}), "logits are not finite")

    def test_weights_are_seeded(self) -> None:
        """Initial weights depend on the generator alone: the same gives the same bits, another gives others."""
        # Two different global states: a layer that draws its weights past the generator shows up.
        with global_generators(1):
            first, second = self.network(seed=1), self.network(seed=2)
        with global_generators(2):
            again = self.network(seed=1)
        weights = [dict(network.named_parameters()) for network in (first, again, second)]
        require(weights[0], "it has no parameters")
        require(same_bits(weights[0], weights[1]), "the same generator gives other weights")
        require(not same_bits(weights[0], weights[2]), "another generator gives the same weights")

    def test_global_generator_is_left_alone(self) -> None:
        """Building leaves torch's global generator as it was."""
        before = torch.random.get_rng_state()
        self.network()
        require(torch.equal(before, torch.random.get_rng_state()), "the global generator was drawn from")

    def test_gradients_are_finite(self) -> None:
        """A gradient reaches every parameter and the images, and is finite."""
        network, images = self.network(), self.images().requires_grad_()
        labels = torch.arange(len(images)) % CLASSES
        nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        for name, tensor in [*network.named_parameters(), ("the images", images)]:
            require(tensor.grad is not None, f"no gradient reaches {name}")
            require(finite({name: tensor.grad}), f"the gradient of {name} is not finite")  # type: ignore[dict-item]

    def test_state_round_trips(self) -> None:
        """Weights and statistics load into a network built anew, which gives the same logits."""
        source, copy, images = self.network(seed=1), self.network(seed=2), self.images()
        with torch.no_grad():
            source(images)
            copy.load_state_dict(source.state_dict())
            require(torch.equal(source.eval()(images), copy.eval()(images)), "the logits differ")

    def test_images_do_not_matter_to_each_other(self) -> None:
        """In evaluation mode, an image's logits do not depend on the other images of the batch."""
        network, images = self.network().eval(), self.images()
        with torch.no_grad():
            together, alone = network(images), torch.cat([network(image[None]) for image in images])
        # Not the same bits: convolutions of another batch size may add their products in another order.
        require(torch.allclose(together, alone, rtol=1e-3, atol=1e-4), "alone, an image has other logits")

    def test_odd_shapes_are_refused(self) -> None:
        """Images of an odd shape are taken, or refused with a DataError of one line."""
        for shape in ODD_SHAPES:
            try:
                built = self.component().build(shape, CLASSES, torch.Generator().manual_seed(0))
                # In evaluation mode: batch norm refuses a single value per channel while training, which is no fault of
                # the network.
                logits = built.eval()(torch.zeros(2, *shape))
            except DataError as error:
                require("\n" not in str(error), f"the error for {shape} has more than one line")
            except Exception as error:  # the author's network
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                raise AssertionError(f"images of {shape} raise {reason}: raise a DataError in network()") from error
            else:
                require(tuple(logits.shape) == (2, CLASSES), f"images of {shape} give logits {tuple(logits.shape)}")

    def component(self) -> Architecture[Any]:
        """Return the architecture."""
        architecture: Architecture[Any] = self.resolved().make()
        return architecture

    def network(self, seed: int = 0) -> Network:
        """Return a network for the first shape that the architecture takes."""
        network = self.component().build(self.shape, CLASSES, torch.Generator().manual_seed(seed))
        require(isinstance(network, Network), f"build() gives {type(network).__name__}, not a harness.Network")
        return network

    def images(self) -> Tensor:
        """Return six images of that shape."""
        return small_problem(shape=self.shape, classes=CLASSES).train_inputs[::6]

    @cached_property
    def shape(self) -> Shape:
        """The first shape that the architecture takes."""
        reasons = []
        for shape in SHAPES:
            try:
                self.component().build(shape, CLASSES, torch.Generator().manual_seed(0))
            except DataError as error:
                reasons.append(str(error))
            else:
                return shape
        raise SkipTest(f"it takes none of the usual shapes: {reasons[0]}")


def _copier(copies: dict[str, Tensor], name: str) -> Callable[..., None]:
    def copy(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            copies[name] = output.clone()

    return copy
