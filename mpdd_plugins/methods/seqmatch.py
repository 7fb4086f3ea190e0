"""Sequential subset matching: Du, Shi, Chen, Yang, NeurIPS 2023 (SeqMatch), over MTT and IDC.

The images of each class are divided into ``subsets``. They are learned one after the other, ``stage`` iterations each:
a subset is learned on networks that have been trained on those before it, which no longer change. The first is learned
as by the base method, and so is a single subset, bit for bit. Students are to train in the same order,
``plain[protocol=seqmatch]``: on the first subset, then on the first two, and so on; the set's schedule says so.

For MTT, the expert of a later subset is trained on real images from a network that was trained on the subsets before
it; it is an expert of this distillation alone, trained when it is first matched, and held in memory for the rest of
the stage (``experts`` times the epochs that may be matched). For IDC, the fresh network of each iteration is first
trained on them.

Departures from the published code. After the third subset it forgets all before the last one in what it trains on;
here all accumulate, as the paper says. IDC's networks serve 50 outer iterations each there, after 1000 epochs on the
earlier subsets, and one iteration here, so that ``prior_epochs`` is lower. The published settings of a stage
(``inner``, ``max_start_epoch``) are options for all stages here. A stage begins without momentum of images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness import (
    Artifact,
    ArtifactRequest,
    DDBenchError,
    DistilledSet,
    Lesson,
    Network,
    Networks,
    OptimizerState,
    Options,
    PixelMethod,
    Recipe,
    Schedule,
    ScheduleStep,
    Task,
    UsageError,
    option,
    train_classifier,
    train_expert,
    train_network,
)
from mpdd_plugins.augmentations.dsa import dsa_augmentation
from mpdd_plugins.augmentations.idc import idc_augmentation
from mpdd_plugins.methods.idc import IDC
from mpdd_plugins.methods.mtt import MTT
from mpdd_plugins.published_settings.idc import IDCOptions
from mpdd_plugins.published_settings.mtt import MTTOptions

STUDENT_RATE = 0.01
"""The rate of IDC's students, which it does not learn."""


class SubsetOptions(Options):
    """Options of both."""

    subsets: int | None = option(
        None, "subsets of the images of a class, learned one after the other; auto: 2, or 1 of a single image",
        source="SeqMatch, IDC at ipc 50", ge=1,
    )  # fmt: skip
    stage: int = option(
        2000, "iterations in which a subset is learned; the last one is learned in all that follow",
        source="SeqMatch, IDC's first stage", ge=1,
    )  # fmt: skip


class SeqMTTOptions(SubsetOptions, MTTOptions):
    """Options of `SeqMTT`."""

    prior_epochs: int = option(
        20, "epochs on each of the earlier subsets, accumulated, of a network that a later expert begins with",
        source="SeqMatch", ge=1,
    )  # fmt: skip


class SeqIDCOptions(SubsetOptions, IDCOptions):
    """Options of `SeqIDC`."""

    prior_epochs: int = option(
        100, "epochs on each of the earlier subsets, accumulated, of a network that a later subset is learned on",
        source="SeqMatch: 1000 for 50 iterations", ge=1,
    )  # fmt: skip


class Subsets:
    """Holds which training images belong to each subset.

    Attributes:
        places: of each subset, the places (classes, n) of its images in ``method.images``.
    """

    def __init__(self, method: PixelMethod[Any], distilled: DistilledSet, subsets: int | None) -> None:
        count, name = min(2, method.ipc) if subsets is None else subsets, method.options.as_
        if count > method.ipc:
            raise UsageError(f"seqmatch: {method.ipc} images a class cannot be divided into subsets={count}")
        if count > 1 and distilled.encoding is not None and distilled.encoding.tensors:
            raise UsageError(f"seqmatch: as={name} has tensors that all subsets share, of which none can be frozen")
        owner = owners(distilled, method.ipc, count)  # (decoded images,)
        # Methods hold their images class by class; a parametrisation decodes them in any order.
        labels = distilled.training_data()[1]
        self._decoded = torch.argsort(labels.argmax(1) if labels.ndim > 1 else labels, stable=True)
        sorted_owner = owner[self._decoded].view(method.classes, -1)
        if bool((owner < 0).any()) or not all(torch.equal(row, sorted_owner[0]) for row in sorted_owner):
            raise UsageError(f"seqmatch: as={name} divides the classes unequally among subsets")
        places = torch.arange(len(owner)).view(method.classes, -1)
        self.places = [places[:, sorted_owner[0] == subset] for subset in range(count)]

    def at(self, stage: int) -> int:
        """Return the subset that is learned in a stage: in all stages after the last subset's, the last."""
        return min(stage, len(self.places) - 1)

    def before(self, subset: int) -> list[Tensor]:
        """Return the places (n,) of what is trained on in turn before a subset: the first one, the first two ..."""
        return [torch.cat([own.flatten() for own in self.places[: last + 1]]) for last in range(subset)]

    def schedule(self, rates: Sequence[float]) -> Schedule:
        """Return the stages of a student: all subsets so far, by the places at which the set decodes them."""
        decoded = self._decoded.tolist()
        every = self.before(len(self.places))
        return Schedule(
            tuple(
                ScheduleStep(rate, tuple(sorted(decoded[place] for place in own.tolist())))
                for rate, own in zip(rates, every, strict=True)
            )
        )


def owners(distilled: DistilledSet, ipc: int, count: int) -> Tensor:
    """Return the subset (n,) of each image that a set decodes to, by what it is decoded from.

    Subsets are as equal as can be, in the order of a class's stored images: of 50 images, three have 17, 17 and 16.
    """
    stored = distilled.images
    before, _ = distilled.training_data()
    owner = torch.full((len(before),), -1)
    for subset, own in enumerate(torch.arange(ipc).tensor_split(count)):
        rows = torch.isin(torch.arange(len(stored)) % ipc, own)
        changed = stored.clone()
        # Each value moves, and stays between 0 and 1 if it was there.
        changed[rows] = torch.where(stored[rows] < 0.5, stored[rows] + 0.25, stored[rows] - 0.25)
        after, _ = replace(distilled, images=changed).training_data()
        owner[(after != before).flatten(1).any(1)] = subset
    return owner


def forget_momentum(method: PixelMethod[Any]) -> None:
    """Let the images of the subset before rest where they are."""
    for tensor in PixelMethod.learned(method).values():
        method.optimizer.state[tensor]["momentum_buffer"] = None


class _Parts(dict[str, dict[str, Tensor]]):
    """Finished parts of an expert that is not resumed."""

    def put(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Forget a part: nothing asks for it again."""


class SeqMTT(MTT):
    """Learns subsets one after the other by MTT, on experts that begin with the subsets before."""

    Options = SeqMTTOptions
    options: SeqMTTOptions

    def __init__(self, task: Task, options: SeqMTTOptions) -> None:
        several = task.ipc > 1 if options.subsets is None else options.subsets > 1
        if several and options.labels == "expert":
            raise UsageError("seqmatch-mtt: labels=expert are new in each iteration, for all subsets: use labels=hard")
        super().__init__(task, options)
        self.subsets = Subsets(self, super().distilled(), options.subsets)
        self.subset = 0
        # The step size that each subset was learned with, of which only those of earlier subsets are read.
        self.rates = torch.full((len(self.subsets.places),), self.setting.step_size)
        smallest = min(own.numel() for own in self.subsets.places)
        self.setting = replace(self.setting, batch=min(self.setting.batch, smallest))
        self._experts: dict[tuple[int, str], Mapping[str, Tensor]] = {}

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Match one stretch of a trajectory with the subset whose turn it is."""
        self.subset = self.subsets.at(iteration // self.options.stage)
        if self.subset and iteration == self.subset * self.options.stage:
            forget_momentum(self)
            self._experts.clear()
        logged = super().step(iteration, networks)
        self.rates[self.subset :] = self.step_size.detach().cpu()
        return logged

    @property
    def _batch_total(self) -> int:
        return self.subsets.places[self.subset].numel()

    def _batches(self, iteration: int, count: int) -> list[Tensor]:
        """Return the images of each step, of the present subset alone."""
        places = self.subsets.places[self.subset].flatten().to(self.images.device)
        return [places[batch] for batch in super()._batches(iteration, count)]

    def _expert(self, network: Network, networks: Networks, iteration: int) -> Mapping[str, Tensor]:
        if self.subset == 0:
            return super()._expert(network, networks, iteration)
        (first,) = networks.needed(network)
        (request,) = self.needs(iteration, None)
        key = (request.index, str(network))
        if key not in self._experts:
            self._experts[key] = self._later_expert(first, request)
        return self._experts[key]

    def _later_expert(self, first: Artifact, request: ArtifactRequest) -> Mapping[str, Tensor]:
        """Train an expert from a network that was trained on the earlier subsets, as far as its epochs are matched."""
        assert first.architecture is not None, "an expert has an architecture"
        options, index, streams = self.options, request.index, self.task.streams
        augment = None if self.strategy == "none" else dsa_augmentation(self.strategy)
        whole = MTT.distilled(self)
        stages = Schedule(self.subsets.schedule(self.rates.tolist()).steps[: self.subset])
        recipe = Recipe(options.prior_epochs, 0.01, "sgd", "constant", 0.0, 0.0, options.batch_expert)
        prior = Lesson(
            replace(whole, schedule=stages), recipe, streams, f"prior-{self.subset}", augment=augment, by_stages=True
        )
        network, _ = train_network(prior, self.task.problem, first.architecture, index)

        def draw(purpose: str, epoch: int) -> torch.Generator:
            return streams.generator(f"expert-{purpose}-{self.subset}", epoch, index)

        epochs = self.setting.max_start_epoch - 1 + self.setting.expert_epochs
        recipe = replace(self._expert_recipe(), epochs=epochs)
        return train_expert(network, self.task.problem, recipe, draw, _Parts(), augment)[0]

    @property
    def has_schedule(self) -> bool:
        """Whether there are stages to train students in."""
        return len(self.subsets.places) > 1

    def distilled(self) -> DistilledSet:
        """Return the present images, and the order in which students are to meet the subsets."""
        whole = super().distilled()
        return replace(whole, schedule=self.subsets.schedule(self.rates.tolist())) if self.has_schedule else whole

    def state(self) -> Mapping[str, Tensor]:
        """Return the state of MTT and the step size that each subset was learned with."""
        return {**super().state(), **({"rates": self.rates} if self.has_schedule else {})}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set all tensors to those that `state` returned."""
        super().restore(state)
        if self.has_schedule:
            self.rates.copy_(state["rates"])
        self._experts.clear()


class SeqIDC(IDC):
    """Learns subsets one after the other by IDC, on networks that were first trained on the subsets before."""

    Options = SeqIDCOptions
    options: SeqIDCOptions

    def __init__(self, task: Task, options: SeqIDCOptions) -> None:
        super().__init__(task, options)
        self.subsets = Subsets(self, super().distilled(), options.subsets)
        self.subset = 0

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Update the images of the subset whose turn it is."""
        self.subset = self.subsets.at(iteration // self.options.stage)
        if self.subset and iteration == self.subset * self.options.stage:
            forget_momentum(self)
        return super().step(iteration, networks)

    def _places(self, iteration: int, round_: int) -> Tensor | None:
        if not self.has_schedule:
            return super()._places(iteration, round_)
        places = self.subsets.places[self.subset]
        if places.shape[1] > self.options.batch_syn:
            places = self._drawn_of(places, iteration, round_)
        return places.to(self.images.device)

    def _warm_up(self, network: Network, iteration: int) -> None:
        """Train a network on the earlier subsets, as students will be."""
        options = self.options
        recipe = Recipe(
            options.prior_epochs, options.lr_net, "sgd", "constant", options.momentum_net, options.weight_decay,
            options.batch_train,
        )  # fmt: skip
        augment = None if self.net_strategy == "none" else idc_augmentation(self.net_strategy, self.classes)
        for stage, places in enumerate(self.subsets.before(self.subset)):

            def draw(purpose: str, epoch: int, stage: int = stage) -> torch.Generator:
                return self.task.streams.generator(f"prior-{purpose}", iteration, stage, epoch)

            images, labels = self.images.detach()[places], self.labels[places]
            losses = train_classifier(network, images, labels, recipe, draw, augment=augment, state=OptimizerState())
            if not torch.tensor(losses).isfinite().all():
                raise DDBenchError("a network diverged on the earlier subsets: a lower lr_net may help")

    @property
    def has_schedule(self) -> bool:
        """Whether there are stages to train students in."""
        return len(self.subsets.places) > 1

    def distilled(self) -> DistilledSet:
        """Return the present images, and the order in which students are to meet the subsets."""
        whole, rates = super().distilled(), [STUDENT_RATE] * len(self.subsets.places)
        return replace(whole, schedule=self.subsets.schedule(rates)) if self.has_schedule else whole
