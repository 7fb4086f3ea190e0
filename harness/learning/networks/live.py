"""Networks that live from step to step: each with weights, optimiser and age, and drawn anew when it is old (FRePo)."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import overload

import torch
from torch import Tensor

from harness.compute.precision import PrecisionContext
from harness.errors import PluginError
from harness.learning.named_tensors import copies_under, tensors_under
from harness.learning.recipe import Augment, Loss, Recipe, cross_entropy
from harness.learning.training import train_classifier
from harness.learning.training_step import OptimizerState
from harness.plugins.returns import tensors
from harness.types.network import Network
from harness.types.seeds import Streams

PREFIX = "live/"
"""Begins the names of live networks' tensors in a trajectory's state."""


@dataclass(frozen=True)
class Birth:
    """All that a drawn network's initial weights depend on, beside the problem and the seed.

    Attributes:
        architecture: its name with options.
        iteration: the iteration of the draw.
        index: the number of the draw in its iteration.
        is_seldom: whether the architecture was drawn with a small probability, so that the network is not compiled.
    """

    architecture: str
    iteration: int
    index: int
    is_seldom: bool


class Member:
    """One network of a set, which is replaced by a fresh one when it is old; the `harness.LiveNetwork` of methods.

    Args:
        draw: draws an architecture, and returns its birth and a fresh network.
        streams: random streams of this distillation.
        recipe: counts the steps of a network's life.
        newborn: the first network with its birth; None draws one.
        age: steps that count as done by the first network.
        optimizer: what the optimiser of the first network remembers.
    """

    def __init__(
        self,
        draw: "Draw",
        streams: Streams,
        recipe: Recipe,
        newborn: "tuple[Network, Birth] | None" = None,
        age: int = 0,
        optimizer: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._draw, self._streams, self._recipe = draw, streams, recipe
        self.network, self._birth = newborn or draw()
        self.age, self._optimizer = age, OptimizerState(dict(optimizer or {}))
        self._trained = self._trained_parameters()

    @property
    def architecture(self) -> str:
        """The name of the network's architecture, with options."""
        return self._birth.architecture

    @property
    def lifetime(self) -> int:
        """The age, in steps, at which the network is replaced."""
        assert self._recipe.steps is not None, "the recipe of live networks counts steps"
        return self._recipe.steps

    def train(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        steps: int = 1,
        loss: Loss = cross_entropy,
        augment: Augment | None = None,
        reduced: PrecisionContext = contextlib.nullcontext,
    ) -> list[float]:
        """Train the network; see `harness.LiveNetwork`."""
        if steps < 1:
            raise ValueError(f"a live network is trained for at least one step, not {steps}")
        if self.age >= self.lifetime:
            self.renew()
            return []
        # A step may have frozen the weights, for a gradient of the images alone.
        self.reset_modes()
        span = range(self.age, min(self.age + steps, self.lifetime))
        losses = train_classifier(
            self.network, images, labels, self._recipe, self._stream,
            loss=loss, augment=augment, reduced=reduced, state=self._optimizer, span=span,
        )  # fmt: skip
        self.age = span.stop
        return losses

    def renew(self) -> None:
        """Replace the network by a fresh one of an architecture that the pool draws now."""
        self.network, self._birth = self._draw()
        self.age, self._optimizer = 0, OptimizerState()
        self._trained = self._trained_parameters()

    def reset_modes(self) -> None:
        """Undo what a step may do to a network beside training it, which no state holds."""
        self.network.train()
        for parameter, is_trained in zip(self.network.parameters(), self._trained, strict=True):
            parameter.requires_grad_(is_trained)
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return copies of all that decides the rest of its life, on the CPU."""
        birth = self._birth
        life = torch.tensor([self.age, birth.iteration, birth.index, birth.is_seldom], dtype=torch.int64)
        # A name as bytes: a state holds tensors and nothing else.
        name = torch.tensor(list(birth.architecture.encode()), dtype=torch.uint8)
        weights = tensors(self.network.state_dict(), f"the weights of {birth.architecture}")
        copies = {**copies_under("network/", weights), **copies_under("optimizer/", self._optimizer.tensors)}
        return {"architecture": name, "life": life, **copies}

    def _trained_parameters(self) -> list[bool]:
        return [parameter.requires_grad for parameter in self.network.parameters()]

    def _stream(self, role: str, unit: int) -> torch.Generator:
        # By birth: no other network of the trajectory is drawn by the same draw of the same iteration.
        return self._streams.generator(f"live {role}", self._birth.iteration, self._birth.index, unit)


Draw = Callable[[], tuple[Network, Birth]]
"""Draws an architecture from the pool, and returns a fresh network of it with its birth."""


class LiveSet(Sequence[Member]):
    """The networks that one call of ``networks.live`` asks for; the `harness.LiveNetworks` of methods."""

    def __init__(self, members: Sequence[Member], terms: "Terms", stream: Callable[[int], torch.Generator]) -> None:
        self.terms = terms
        self._members, self._stream, self._choices = members, stream, 0

    @overload
    def __getitem__(self, index: int) -> Member: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Member]: ...

    def __getitem__(self, index: int | slice) -> Member | Sequence[Member]:
        return self._members[index]

    def __len__(self) -> int:
        return len(self._members)

    def choose(self) -> Member:
        """Return a network drawn uniformly; see `harness.LiveNetworks`."""
        generator = self._stream(self._choices)
        self._choices += 1
        return self._members[int(torch.randint(len(self), (), generator=generator))]

    def begin(self) -> None:
        """Start an iteration: choices are numbered from 0 again, and all networks are in training mode."""
        self._choices = 0
        for member in self._members:
            member.reset_modes()


@dataclass(frozen=True)
class Terms:
    """What a method asks for by ``networks.live``, the same in every step."""

    count: int
    recipe: Recipe
    is_staggered: bool

    @classmethod
    def of(cls, count: int, steps: int, recipe: Recipe, is_staggered: bool) -> "Terms":
        """Return checked terms, with a recipe that counts the steps of a life.

        Raises:
            PluginError: a number is below 1.
        """
        if count < 1 or steps < 1:
            raise PluginError(f"networks.live({count}, steps={steps}): both are at least 1")
        return cls(count, replace(recipe, epochs=0, images=None, steps=steps), is_staggered)

    def first_age(self, index: int) -> int:
        """Return the age at which a network of the first generation begins."""
        # As in FRePo: without it, all networks of a set would be replaced at about the same time.
        return index * (self.recipe.steps or 0) // self.count if self.is_staggered else 0


class LiveSets:
    """All sets of live networks of a trajectory, by name.

    Args:
        draw: draws from the pool at the present iteration.
        rebuild: builds the network of a birth as it was drawn.
        streams: random streams of this distillation.
    """

    def __init__(self, draw: Draw, rebuild: Callable[[Birth], Network], streams: Streams) -> None:
        self._draw, self._rebuild, self._streams = draw, rebuild, streams
        self._iteration = 0
        self._sets: dict[str, LiveSet] = {}
        # Restored sets that no step has asked for yet: their recipe is known only then.
        self._stored: dict[str, list[dict[str, Tensor]]] = {}

    def begin(self, iteration: int) -> None:
        """Start an iteration, counted from 0."""
        self._iteration = iteration
        for live in self._sets.values():
            live.begin()

    def get(self, name: str, terms: Terms) -> LiveSet:
        """Return the set of a name; its networks are drawn when it is first asked for.

        Raises:
            PluginError: the name is no word, or the terms are not those of the set.
        """
        if not name.isidentifier():
            raise PluginError(f"networks.live(..., name={name!r}): a name consists of letters, digits and _")
        if name not in self._sets:
            stored = self._stored.pop(name, None)
            members = self._first_members(terms) if stored is None else self._restored(name, stored, terms)
            self._sets[name] = LiveSet(list(members), terms, partial(self._choice_stream, name))
        if self._sets[name].terms != terms:
            raise PluginError(
                f"networks.live(..., name={name!r}) asks for other networks than before: ask for the same count, steps "
                "and recipe in every step, or use another name"
            )
        return self._sets[name]

    def state(self) -> dict[str, Tensor]:
        """Return copies of all that decides the lives to come, on the CPU; empty if there are no live networks."""
        states = {name: [member.state() for member in live] for name, live in self._sets.items()}
        return {
            f"{PREFIX}{name}/{index}/{key}": tensor
            for name, members in {**self._stored, **states}.items()
            for index, member in enumerate(members)
            for key, tensor in member.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned: all present networks are dropped."""
        self._sets, self._stored = {}, {}
        places = [(tuple(name.removeprefix(PREFIX).split("/", 2)), tensor) for name, tensor in state.items()]
        # In the order of their indices, which a file need not have.
        for (name, index, key), tensor in sorted(places, key=lambda place: (place[0][0], int(place[0][1]))):
            members = self._stored.setdefault(name, [])
            if int(index) == len(members):
                members.append({})
            members[int(index)][key] = tensor

    def _choice_stream(self, name: str, choice: int) -> torch.Generator:
        return self._streams.generator(f"live choice {name}", self._iteration, choice)

    def _first_members(self, terms: Terms) -> Iterator[Member]:
        for index in range(terms.count):
            yield Member(self._draw, self._streams, terms.recipe, age=terms.first_age(index))

    def _restored(self, name: str, stored: Sequence[Mapping[str, Tensor]], terms: Terms) -> Iterator[Member]:
        if len(stored) != terms.count:
            raise PluginError(
                f"networks.live({terms.count}, name={name!r}): the trajectory that goes on has {len(stored)} networks"
            )
        for member in stored:
            age, iteration, index, is_seldom = member["life"].tolist()
            architecture = bytes(member["architecture"].tolist()).decode()
            birth = Birth(architecture, iteration, index, bool(is_seldom))
            network = self._rebuild(birth)
            network.load_state_dict(tensors_under("network/", member))
            # On the CPU as they are stored: the optimiser moves them, except counters that it wants there.
            optimizer = tensors_under("optimizer/", member)
            yield Member(self._draw, self._streams, terms.recipe, (network, birth), age, optimizer)
