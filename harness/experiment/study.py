"""From a request to a plan: names resolved, options checked, and everything refused that can be refused before work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch

from harness.datasets.problems import data_root, make_problem
from harness.experiment.arms import Arm
from harness.experiment.plan import Plan
from harness.experiment.request import Request
from harness.experiment.sources import Source, TrajectorySource
from harness.learning.machine import choose_device
from harness.plugins.registry import Registry, Resolved
from harness.types.dataset import RunDefaults
from harness.types.errors import DataError, UsageError
from harness.types.names import Name, expand
from harness.types.network import Architecture
from harness.types.problem import Problem


@dataclass(frozen=True, eq=False)
class Study:
    """Resolves the names of a request.

    Args:
        request: what was asked for.
        registry: what there is.
        hold_out: hold a validation split out of the training set.
    """

    request: Request
    registry: Registry
    hold_out: bool = False

    def plan(self) -> Plan:
        """All arms that were asked for, and the counts.

        Raises:
            UsageError, DataError, PluginError: something cannot be meant or cannot work.
        """
        if not self.request.method:
            raise UsageError("no method was given: say --method dc; `ddbench methods` lists them")
        plans = [self._plan_on(dataset) for dataset in self.names("dataset", self.request.dataset, {})]
        counts = {(plan.students, plan.distillations) for plan in plans}
        if len(counts) > 1:
            raise UsageError("these data sets have different defaults: give --students and --distillations")
        skipped = tuple(dict.fromkeys(reason for plan in plans for reason in plan.notes))
        return replace(plans[0], arms=[arm for plan in plans for arm in plan.arms], notes=skipped)

    def names(self, kind: str, given: Sequence[str], defaults: RunDefaults | dict[str, Any]) -> list[Resolved[Any]]:
        """Resolve names of a kind with their sweeps multiplied out; ``all`` is every one that needs no options."""
        options = defaults.options if isinstance(defaults, RunDefaults) else {}
        texts = [text for name in given for text in (self._all(kind) if name == "all" else [name])]
        expanded = [name for text in texts for name in expand(text)]
        names = [name.with_defaults(dict(options.get(name.name.rpartition(":")[2], {}))) for name in expanded]
        resolved = [self.registry.resolve(kind, name) for name in names]
        return list({(one.entry.provider, str(one)): one for one in resolved}.values())

    def architecture(self, name: str) -> Resolved[Architecture[Any]]:
        """Resolve the name of an architecture."""
        return self.registry.resolve("architecture", name)

    def arms(
        self, sources: Sequence[tuple[Source, int | None]], problem: Problem, defaults: RunDefaults
    ) -> Iterator[Arm]:
        """Cross sources (with their iterations) with the evaluators and architectures that were asked for."""
        evaluators = self.names("evaluator", self.request.evaluator or defaults.evaluators, defaults)
        architectures = self.names("architecture", self.request.architecture or defaults.architectures, defaults)
        for architecture in architectures:
            check_buildable(architecture, problem)
        for evaluator in evaluators:
            request = evaluator.cls(evaluator.options).artifact(0)
            if request and request.architecture:
                check_buildable(self.architecture(request.architecture), problem)
        for (source, iterations), evaluator, architecture in product(sources, evaluators, architectures):
            yield Arm(source, iterations, evaluator, architecture, self.architecture)

    def problem(self, dataset: Resolved[Any]) -> Problem:
        """Load a data set as the request wants it split."""
        request = self.request
        return make_problem(
            dataset,
            root=data_root(),
            score_on=request.score_on,
            hold_out=self.hold_out,
            seed=request.seed,
            device=choose_device(request.device),
        )

    def _plan_on(self, dataset: Resolved[Any]) -> Plan:
        defaults: RunDefaults = dataset.cls(dataset.options).traits.defaults
        request, problem = self.request, self.problem(dataset)
        points = tuple(dict.fromkeys(request.iterations or defaults.iterations))
        methods = self.names("method", request.method, defaults)
        pools = self.names("pool", request.pool, defaults)
        sources: dict[str, tuple[Source, int]] = {}
        skipped = []
        for ipc, method, pool in product(request.ipc or defaults.ipc, methods, pools):
            check_ipc(ipc, problem)
            if not method.cls.uses_pool:
                skipped.append(f"{method} draws no network: a pool is not applicable to it")
            source = TrajectorySource(
                problem,
                method,
                pool if method.cls.uses_pool else None,
                ipc,
                request.seed,
                request.precision,
                max(points),
                self.architecture,
            )
            for drawable in source.drawable():
                check_buildable(drawable, problem)
            for point in points:
                sources.setdefault(source.set_cell(0, point).key, (source, point))
        return Plan(
            list(self.arms(list(sources.values()), problem, defaults)),
            request.students or defaults.students,
            request.distillations or defaults.distillations,
            request.rerun_stale,
            tuple(dict.fromkeys(skipped)),
        )

    def _all(self, kind: str) -> list[str]:
        entries = self.registry.of_kind(kind)
        chosen = [e for e in entries if not _needs_options(e.load())]
        return [f"{e.provider}:{e.name}" if self.registry.ambiguous(e) else e.name for e in chosen]


def check_ipc(ipc: int, problem: Problem) -> None:
    """Raise `DataError` where a class has fewer training images than the distilled set would have."""
    sizes = [len(members) for members in problem.of_class]
    smallest = sizes.index(min(sizes))
    if ipc > sizes[smallest]:
        told = f"class {problem.classes[smallest]!r} of {problem.name} has only {sizes[smallest]} training images"
        raise DataError(f"ipc {ipc} is larger than a class: {told}; use a smaller --ipc")


def check_buildable(architecture: Resolved[Architecture[Any]], problem: Problem) -> None:
    """Build the network without memory, so that unsuitable images are refused before any work.

    Raises:
        DataError: the architecture cannot take images of this shape.
    """
    with torch.device("meta"):
        architecture.cls(architecture.options).build(problem.shape, len(problem.classes), torch.Generator("cpu"))


def _needs_options(component: type[Any]) -> bool:
    return any(field.is_required() for field in component.Options.model_fields.values())


def name_of(resolved: Resolved[Any]) -> Name:
    """The name with the options that differ from their defaults."""
    return Name(resolved.entry.name, tuple(resolved.options.changed().items()))
