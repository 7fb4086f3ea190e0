"""ELF: intermediate features of a network on the real data as targets and inputs (arXiv 2312.05598).

A network is trained on the real data, and its map of each distilled image is stored. A student is cut in two where its
own map has that shape: its front learns to give the stored map, its rear learns to classify it, and both together learn
the labels. The accuracy is that of the whole student. It uses real data at evaluation, so that its scores are no match
for those of sets alone.

Departures from the published code. A student is cut at the first layer with maps of the shape that are never negative,
where the code names a layer for each of its networks.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import (
    Architecture,
    Artifact,
    Augment,
    Batch,
    DistilledSet,
    Evaluator,
    Loss,
    NamedAugment,
    Network,
    Problem,
    RealNetwork,
    Recipe,
    Streams,
    StudentRecord,
    UsageError,
    cross_entropy,
    draws_globally,
    option,
    train_each,
    train_in_phases,
    trained_network,
)
from mpdd_plugins.augmentations import dsa
from mpdd_plugins.evaluators.cut_networks import CutNetwork, has_signed_maps, map_shape, place_of, taps_may_be_negative
from mpdd_plugins.evaluators.drop_paths import layers_of
from mpdd_plugins.evaluators.protocol import TrainingOptions
from mpdd_plugins.evaluators.protocol_overview import protocol_rows

FrontLoss = Literal["cross-entropy", "l2", "l1", "cosine"]
BATCH = 256
"""Images of a step of the teacher, and of a pass that stores maps."""


class ELFOptions(TrainingOptions):
    """Options of `ELF`."""

    # None that mixes labels, for a stored map belongs to a single image.
    protocol: Literal["dsa", "v1", "quick", "mtt"] = option(
        "dsa",
        "the recipe of the students, as of plain: dsa: 1001 epochs of SGD under DSA's augmentation; v1: 301, or 1001 "
        "where the set is augmented; quick: 101; mtt: dsa with the learning rate that the set has learned",
        source="ELF: MTT's evaluation",
    )
    precision: Literal["fp32"] = option("fp32", "students are trained and scored in float32", source="own choice")
    teacher: str = option(
        "convnet[width=512]", "architecture of the network on the real data", source="ELF, code: MTT's experts"
    )
    tap: str = option(
        "block3",
        "its tap whose maps are stored: three dimensions, for front-loss=cross-entropy none negative",
        source="ELF, code",
    )
    teacher_epochs: int = option(
        100, "its epochs at a constant rate of 0.01, SGD with momentum 0.9, weight decay 5e-4, batch 256, under DSA",
        source="ELF, code: epoch 100 of an expert's 200", alias="teacher-epochs", ge=1,
    )  # fmt: skip
    front: float = option(1.0, "weight of the front's loss", source="ELF, lambda", ge=0)
    rear: float = option(1.0, "weight of the rear's cross-entropy on stored maps", source="ELF, code", ge=0)
    front_loss: FrontLoss = option(
        "cross-entropy",
        "cross-entropy: over channels at each pixel, with the raw stored map as weights; l2, l1: mean over all; "
        "cosine: one minus that over channels",
        source="ELF, code",
        alias="front-loss",
    )


def front_loss(maps: Tensor, stored: Tensor, kind: FrontLoss = "cross-entropy") -> Tensor:
    """Return the loss of a front's maps against stored ones, a scalar.

    Args:
        maps: of the front (n, c, h, w).
        stored: of the same shape, from 0 on; they need not sum to 1 over channels.
        kind: see `ELFOptions`.
    """
    if kind == "l2":
        return functional.mse_loss(maps, stored)
    if kind == "l1":
        return functional.l1_loss(maps, stored)
    if kind == "cosine":
        return 1 - functional.cosine_similarity(maps, stored, dim=1).mean()
    # Over channels, for each image and pixel; the mean is over both.
    return functional.cross_entropy(maps, stored)


class ELF(Evaluator[ELFOptions]):
    """Trains students on labels, with a stored map of a network on the real data as target of their front.

    The loss is CE of the whole, plus the front's loss against the stored maps, plus CE of the rear on these.
    """

    Options = ELFOptions
    check_options = "epochs=2,teacher=convnet[width=4],teacher-epochs=1"

    @property
    def uses_real_data(self) -> bool:
        """Whether maps are those of a network on the real data: always."""
        return True

    def protocols(self) -> list[dict[str, str]]:
        """Return the constants and sources of the protocols, with those of the stored maps."""
        return protocol_rows(ELFOptions, ("teacher", "tap", "teacher_epochs", "front", "rear", "front_loss"))

    def protocol(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """Return the protocol's name with its departures, such as ``elf dsa v1 + epochs=5``."""
        return f"elf {self.options.version_name()}{self.options.departures(problem, architecture)}"

    def unsuited(
        self, problem: Problem, architecture: Architecture[Any], needed: Architecture[Any] | None
    ) -> str | None:
        """Return why students of an architecture have no place for the stored maps; None if they have one.

        Raises:
            UsageError: the teacher has no such maps, or they may be negative and the loss takes none that are.
        """
        assert needed is not None, "it asks for a network"
        options = self.options
        # First of all: these are faults of the options, whatever the students are.
        wanted = map_shape(problem, needed, options.tap, f"elf: the teacher {options.teacher}")
        signed = taps_may_be_negative(problem, needed, options.tap)
        if signed:
            self._refuse_signed()
        with torch.device("meta"):
            network = architecture.network(problem.shape, len(problem.classes))
        if not any(isinstance(module, nn.Conv2d) for module in network.modules()):
            return "it has no maps that could learn those of a network on the real data"
        if layers_of(network) is None:
            return "its layers are not in sequence, so that it cannot be cut at a map"
        if place_of(network, problem.shape, wanted, signed=signed) is not None:
            return None
        size = "x".join(map(str, wanted))
        if place_of(network, problem.shape, wanted, signed=True) is not None:
            return f"its maps of {size} may be negative by its activation, and those of {options.teacher} are not"
        return f"none of its maps is {size}, as those of {options.teacher}: choose another teacher=... or tap=..."

    def _refuse_signed(self) -> None:
        """Refuse maps that may be negative if they are to be weights of a cross-entropy, which had no least value.

        Raises:
            UsageError: they are.
        """
        options = self.options
        if options.front and options.front_loss == "cross-entropy":
            raise UsageError(
                f"elf: maps {options.tap!r} of the teacher {options.teacher} may be negative, so that "
                "front-loss=cross-entropy has no least value: choose front-loss=l2, or a teacher with ReLU"
            )

    def artifact(self, student: int) -> RealNetwork:
        """Request the network on the real data, the same for all students."""
        recipe = Recipe(self.options.teacher_epochs, 0.01, schedule="constant", batch=BATCH)
        augmentation = NamedAugment("dsa, the set's own", _own_augmentation)
        return RealNetwork(architecture=self.options.teacher, recipe=recipe, augmentation=augmentation)

    def evaluate(
        self,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any],
        students: Sequence[int],
        artifacts: Mapping[int, Artifact],
        streams: Streams,
    ) -> Iterator[StudentRecord]:
        """Train and score students, side by side if that is faster."""
        teacher = trained_network(artifacts[students[0]], problem)
        signed = has_signed_maps(teacher, problem.shape, self.options.tap)
        stored = self._stored(teacher, distilled, problem)
        if bool((stored < 0).any()):
            self._refuse_signed()
        wanted = (stored.shape[1], stored.shape[2], stored.shape[3])
        lesson = self.options.lesson(distilled, problem, architecture, streams, lambda student: cross_entropy)

        def train(student: int) -> tuple[nn.Module, list[float]]:
            generator = streams.generator(lesson.role, 0, student)
            network = architecture.build(problem.shape, len(problem.classes), generator)
            place = place_of(network, problem.shape, wanted, signed=signed)
            assert place is not None, "checked by `unsuited`"
            cut = CutNetwork(network, place).to(problem.device)
            losses = train_in_phases(
                cut, lesson, problem, student, loss=self._loss_of(cut, stored, len(problem.classes))
            )
            return cut, losses

        built = architecture.build(problem.shape, len(problem.classes), torch.Generator()).to(problem.device)
        return train_each(train, problem, students, alone=draws_globally(built, problem), streams=streams)

    def _loss_of(self, network: CutNetwork, stored: Tensor, classes: int) -> Loss:
        """Return the loss of a student's steps, whose logits have the maps of its front behind them."""
        options = self.options

        def loss(batch: Batch) -> Tensor:
            logits, maps = batch.logits[:, :classes], batch.logits[:, classes:]
            own = stored[batch.index]
            whole = functional.cross_entropy(logits, batch.labels)
            front = front_loss(maps.reshape(own.shape), own, options.front_loss)
            rear = functional.cross_entropy(network.rear(own), batch.labels)
            return whole + options.front * front + options.rear * rear

        return loss

    def _stored(self, network: Network, distilled: DistilledSet, problem: Problem) -> Tensor:
        """Return the maps (n, c, h, w) of the network on the real data for the set's images, not augmented."""
        tap = self.options.tap
        images, _ = distilled.training_data()
        with torch.no_grad():
            parts = [network.features(part.to(problem.device), taps=[tap])[tap] for part in torch.split(images, BATCH)]
        return torch.cat(parts)

    def work(self, problem: Problem, images: int) -> float:
        """Return the passes of one student; a rear that is trained twice counts once."""
        return self.options.student_work(problem, images)


def _own_augmentation(problem: Problem) -> Augment:
    return dsa.dsa_augmentation(dsa.own_strategy(problem))
