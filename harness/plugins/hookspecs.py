"""The hooks that a plugin implements, with ``from harness import hookimpl``.

A plugin is a module behind an entry point of the group ``ddbench``. It may declare the version of this contract that it
was written for, by ``ddbench_contract = 2``; without that it is taken as it is. Each ``register_*`` hook receives a
function to call once for each component: ``register(name, target, summary)``. ``target`` is ``"package.module:Class"``,
imported only when the component is used. A hook that raises, or a module that cannot be imported, makes a listed row
and nothing else.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:  # listing plugins imports no torch
    from harness.types.distilled import DistilledSet

CONTRACT_VERSION = 2
"""The version of the contract between ddbench and its plugins: 1 in ddbench 0.1, 2 in 0.2. It rises whenever a plugin
may have to change; what merely adds a hook, a name or an option leaves it."""
OLDEST_CONTRACT = 1
"""The oldest version of the contract whose plugins still work."""
CONTRACT_ATTRIBUTE = "ddbench_contract"
"""The attribute of a plugin's module that declares the version of the contract that it was written for."""
hookspec = pluggy.HookspecMarker("ddbench")
hookimpl = pluggy.HookimplMarker("ddbench")


class Register(Protocol):
    """The function that a ``register_*`` hook calls for each component."""

    def __call__(self, name: str, target: str, summary: str) -> None:
        """Register the class at ``target`` under ``name``, with a one-line summary."""
        ...


@hookspec
def register_methods(register: Register) -> None:
    """Register distillation methods, subclasses of `harness.Method`.

    ``register("mine", "my_package.mine:Mine", "matches what nobody matched")``
    """


@hookspec
def register_pools(register: Register) -> None:
    """Register model-pool policies, subclasses of `harness.Pool`."""


@hookspec
def register_parametrisations(register: Register) -> None:
    """Register parametrisations, subclasses of `harness.Parametrisation`: what a set stores and how it is decoded."""


@hookspec
def register_evaluators(register: Register) -> None:
    """Register evaluators, subclasses of `harness.Evaluator`."""


@hookspec
def register_architectures(register: Register) -> None:
    """Register architectures, subclasses of `harness.Architecture`."""


@hookspec
def register_datasets(register: Register) -> None:
    """Register data sets, subclasses of `harness.Dataset`."""


@hookspec
def register_formats(register: Register) -> None:
    """Register file formats of distilled sets, subclasses of `harness.SetFormat`."""


@hookspec
def register_reports(register: Register) -> None:
    """Register reports on the results in stores, subclasses of `harness.Report`."""


@hookspec
def register_executors(register: Register) -> None:
    """Register executors, which start the work of a run somewhere, subclasses of `harness.Executor`."""


@hookspec
def register_trackers(register: Register) -> None:
    """Register trackers, observers that a run asks for by name, subclasses of `harness.Tracker`."""


@hookspec
def register_metrics(register: Register) -> None:
    """Register metrics, what a run measures of its students beside the accuracy, subclasses of `harness.Metric`."""


@hookspec
def published_sets() -> str:
    """Return the path of a TOML file of published distilled sets, for ``ddbench published`` and ``eval --as``.

    Each table is a set by its name, with the keys ``file``, ``source``, ``dataset``, ``evaluator``, ``sha256``,
    ``format``, ``entry``, ``step_size``, ``students``, ``note``, and ``accuracy`` for what is stated, in percent:
    ``accuracy = { convnet = [28.3, 0.5], mlp = 26.5 }``, with the standard deviation if it was published.
    """
    raise NotImplementedError


@hookspec
def cell_started(cell: Mapping[str, Any]) -> None:
    """Receive a notice that work on a cell starts, in the process that runs it.

    ``cell`` has its ``key``, ``kind``, ``label`` and ``identity``, here and in the other hooks. Observers run on a
    thread of their own and receive copies: neither an exception nor a delay affects the work.
    """


@hookspec
def cell_finished(cell: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
    """Receive the ``outcome`` of a cell: its record, or ``{"status": "failed", "reason": ...}``."""


@hookspec
def step(cell: Mapping[str, Any], iteration: int, scalars: Mapping[str, float]) -> None:
    """Receive what a method logged at an iteration, on the way to the set that ``cell`` is; a scalar may be NaN.

    Of each set the first steps and the last are passed on, and about ten a second of those between. Steps are dropped
    while an observer is behind; other events never are.
    """


@hookspec
def set_finished(cell: Mapping[str, Any], distilled: "DistilledSet") -> None:
    """Receive a distilled set that was just put into the store, before `cell_finished` of the same cell."""
