"""The contract of parametrisations."""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Literal
from unittest import SkipTest

import torch
from torch import Tensor

from harness.errors import DataError, DDBenchError
from harness.testing.contract import Contract, finite, require, same_bits
from harness.testing.small import global_generators, small_problem
from harness.types.data.labels import check_labels, class_indices
from harness.types.parametrisation import Encoding, InitialImages, check_pixels
from harness.types.problem import Problem
from harness.types.seeds import Streams

OTHER_IMAGES = (3, 32, 32)
_LARGE = 0.5
"""How far the stored values are pushed before they are constrained and decoded."""
_STEP = 1e-4
_TOLERANCE = 1e-2
"""Step and relative tolerance of the gradient by differences, in float64."""


class ParametrisationContract(Contract):
    """The obligations of every parametrisation, on a problem of three classes of twelve images.

    Attributes:
        ipc: stored images per class.
    """

    kind = "parametrisation"
    ipc: ClassVar[int] = 2

    def test_stores_ipc_images_of_each_class(self) -> None:
        """It starts, from real images and from noise, with finite tensors of which ``images`` has ipc rows a class."""
        for kind in ("real", "noise"):
            for ipc in (1, self.ipc):
                tensors = self._initial(kind, ipc=ipc)
                require("images" in tensors, f"initial() has no tensor 'images', but {', '.join(tensors) or 'none'}")
                rows, wanted = len(tensors["images"]), ipc * len(self.problem.classes)
                require(rows == wanted, f"from {kind}, 'images' has {rows} rows instead of {wanted}")
                require(finite(tensors), f"from {kind}, a tensor is not finite")

    def test_decodes_to_training_images(self) -> None:
        """It decodes to finite images of the data set's shape, with as many of each class, in [0, 1] if pixels."""
        for problem in (self.problem, small_problem(shape=OTHER_IMAGES, train=4)):
            for kind in ("real", "noise"):
                self._check_decoded(*self._decoded(self._initial(kind, problem), problem), problem)

    def test_stays_in_range_when_learned(self) -> None:
        """After a large update and `constrain`, what it decodes is still in range and passes `check`."""
        tensors = self._initial("noise")
        for name, tensor in tensors.items():
            generator = torch.Generator().manual_seed(len(name))
            tensor += _LARGE * torch.randn(tensor.shape, generator=generator)
        before = {name: tensor.data_ptr() for name, tensor in tensors.items()}
        self._encoding.parametrisation.constrain(tensors)
        same = before == {name: tensor.data_ptr() for name, tensor in tensors.items()}
        require(same, "constrain() replaces a tensor: change it in place, with clamp_() and the like")
        try:
            self._encoding.parametrisation.check(tensors, self.problem.shape)
        except DataError as error:
            raise AssertionError(f"check() refuses what constrain() left: {error}") from error
        self._check_decoded(*self._decoded(tensors), self.problem, learned=True)

    def test_same_tensors_same_images(self) -> None:
        """Decoding draws nothing: the same tensors give the same bits, and are left as they are."""
        tensors = self._initial("real")
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        decoded = []
        for seed in (1, 2):
            with global_generators(seed):
                decoded.append(self._decoded(tensors))
        same = all(torch.equal(first, second) for first, second in zip(*decoded, strict=True))
        require(same, "decoded twice, the images differ: enumerate what is drawn at random")
        require(same_bits(tensors, copies), "decode() changes the tensors that it reads")

    def test_starts_are_seeded(self) -> None:
        """The same seed gives the same start, whatever the global generators' state; ``noise`` differs by seed."""
        starts = []
        for seed in (1, 2):
            with global_generators(seed):
                starts.append(self._initial("noise"))
        require(same_bits(*starts), "with the global generators in another state, it starts otherwise")
        other = self._initial("noise", distillation=1)
        require(not same_bits(starts[0], other), "every distillation starts from the same noise: use start.streams")

    def test_labels_follow_their_images(self) -> None:
        """Images of a class are decoded from stored images of that class alone, or from tensors that all share."""
        tensors = self._initial("real")
        images, labels = self._decoded(tensors)
        changed = {**tensors, "images": tensors["images"].clone()}
        first = self._labels(self.problem, self.ipc) == 0
        changed["images"][first] = changed["images"][first] * 0.5
        others = class_indices(labels) != 0
        same = torch.equal(images[others], self._decoded(changed)[0][others])
        require(same, "images of other classes change with the stored images of the first: are labels in order?")

    def test_gradients_reach_every_tensor(self) -> None:
        """The gradient of what is decoded reaches every tensor, and agrees with finite differences."""
        tensors = {name: tensor.double().requires_grad_() for name, tensor in self._initial("real").items()}
        for name, tensor in tensors.items():
            # Away from the ends of the range, where clamping inside of decode() has no derivative.
            tensor.data = 0.25 + 0.5 * tensor.data if name == "images" else tensor.data

        def total(values: Mapping[str, Tensor]) -> Tensor:
            # Class indices have no gradient, and labels that the parametrisation has must have one.
            learned = self._encoding.parametrisation.label_kind is not None
            decoded = self._decoded(values) if learned else self._decoded(values)[:1]
            weights = (torch.linspace(0.5, 1.5, part.numel(), dtype=torch.float64).view_as(part) for part in decoded)
            return torch.stack([(w * part.square()).sum() for w, part in zip(weights, decoded, strict=True)]).sum()

        gradients = torch.autograd.grad(total(tensors), list(tensors.values()), allow_unused=True)
        for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True):
            require(gradient is not None, f"no gradient reaches the tensor {name!r}: decode() detaches it")
            assert gradient is not None
            direction = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            steps = ({**tensors, name: tensor.detach() + sign * _STEP * direction} for sign in (1, -1))
            up, down = (float(total(step).detach()) for step in steps)
            difference, product = (up - down) / (2 * _STEP), float((gradient * direction).sum())
            off = abs(difference - product) / max(abs(difference), 1.0)
            require(off < _TOLERANCE, f"the gradient of {name!r} is {product:g}, by differences {difference:g}")

    def test_storage_counts_every_tensor(self) -> None:
        """The storage in bits is a whole number above 0, and grows by as much with every stored image."""
        bits = [self._storage(ipc) for ipc in (1, 2, 3)]
        require(all(type(count) is int and count > 0 for count in bits), f"storage_bits() is {bits[0]!r}")
        steps = (bits[1] - bits[0], bits[2] - bits[1])
        require(steps[0] == steps[1] > 0, f"sets of 1, 2 and 3 images a class take {bits} bits")

    def test_a_shape_that_does_not_divide(self) -> None:
        """It takes images whose sides no factor divides, or refuses them with one line."""
        problem = small_problem(shape=(1, 17, 13))
        try:
            tensors = self._initial("real", problem)
        except DDBenchError as error:
            require("\n" not in str(error), f"the refusal has several lines: {error}")
            raise SkipTest(str(error)) from None
        self._check_decoded(*self._decoded(tensors, problem), problem)

    # --- what the checks are made of ---

    @cached_property
    def problem(self) -> Problem:
        """A problem of three classes, with twelve grey images of 16x16 each."""
        return small_problem()

    @cached_property
    def _encoding(self) -> Encoding:
        resolved = self.resolved()
        return Encoding(resolved.make(), resolved.entry.name, resolved.entry.provider, self.problem.shape)

    def _initial(
        self,
        kind: Literal["real", "noise"],
        problem: Problem | None = None,
        *,
        ipc: int | None = None,
        distillation: int = 0,
    ) -> dict[str, Tensor]:
        start = InitialImages(problem or self.problem, ipc or self.ipc, kind, Streams(0, distillation))
        return {name: tensor.clone() for name, tensor in self._encoding.parametrisation.initial(start).items()}

    def _labels(self, problem: Problem, ipc: int) -> Tensor:
        return torch.arange(len(problem.classes)).repeat_interleave(ipc)

    def _decoded(self, tensors: Mapping[str, Tensor], problem: Problem | None = None) -> tuple[Tensor, Tensor]:
        problem = problem or self.problem
        labels = self._labels(problem, len(tensors["images"]) // len(problem.classes))
        return self._encoding.parametrisation.decode(tensors, labels, problem.shape)

    def _storage(self, ipc: int) -> int:
        labels = self._labels(self.problem, ipc)
        return self._encoding.parametrisation.storage_bits(self._initial("noise", ipc=ipc), labels)

    def _check_decoded(self, images: Tensor, labels: Tensor, problem: Problem, *, learned: bool = False) -> None:
        require(tuple(images.shape[1:]) == problem.shape, f"images are {tuple(images.shape[1:])}, not {problem.shape}")
        require(len(images) == len(labels), f"{len(images)} images have {len(labels)} labels")
        require(finite({"images": images}), "decoded images are not finite")
        own = self._encoding.parametrisation.label_kind
        try:
            check_labels(labels, len(images), len(problem.classes), kind=own or "hard")
        except DataError as error:
            raise AssertionError(f"it decodes to other labels than label_kind = {own!r} says: {error}") from error
        counts = torch.bincount(class_indices(labels), minlength=len(problem.classes)).tolist()
        # Learned labels may favour any class later on.
        balanced = (own is not None and learned) or len(set(counts)) == 1
        require(balanced, f"images of each class are {counts}: as many of each are needed")
        if self._encoding.parametrisation.decodes_to == "pixels":
            try:
                check_pixels(images)
            except DataError as error:
                raise AssertionError(f"{error}; decode to [0, 1], or declare decodes_to = 'inputs'") from error
