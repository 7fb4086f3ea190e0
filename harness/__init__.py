"""ddbench: a benchmark harness for dataset distillation.

Everything that users and plugin authors need is a name of this package; a name's module is imported when it is first
used, so that ``import harness`` is instant and never imports torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from harness.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from harness.experiment.api import RunResult, evaluate, run
    from harness.learning.batchnorm import freeze_statistics
    from harness.learning.matching import DISTANCES, gradient_in_slices, gradient_of, layerwise_cosine
    from harness.learning.recipe import Batch, Loss, Recipe, cross_entropy, train_classifier
    from harness.learning.students import Lesson, train_network, train_students
    from harness.types.dataset import Dataset, DatasetOptions, RawData, RunDefaults, Traits
    from harness.types.distilled import DistilledSet
    from harness.types.errors import DataError, DDBenchError, PluginError, StoreError, UsageError
    from harness.types.evaluator import Artifact, ArtifactRequest, Evaluator, StudentRecord
    from harness.types.formats import load_distilled, save_distilled
    from harness.types.method import Method, Task
    from harness.types.network import Architecture, Network, Networks
    from harness.types.options import NameList, Options, option
    from harness.types.pool import Pool
    from harness.types.preprocessing import Normalize, Preprocessing, Whiten
    from harness.types.problem import Problem, Shape, Split
    from harness.types.seeds import Streams

_HOMES = {
    "experiment.api": "RunResult evaluate run",
    "learning.batchnorm": "freeze_statistics",
    "learning.matching": "DISTANCES gradient_in_slices gradient_of layerwise_cosine",
    "learning.recipe": "Batch Loss Recipe cross_entropy train_classifier",
    "learning.students": "Lesson train_network train_students",
    "types.dataset": "Dataset DatasetOptions RawData RunDefaults Traits",
    "types.distilled": "DistilledSet",
    "types.errors": "DataError DDBenchError PluginError StoreError UsageError",
    "types.evaluator": "Artifact ArtifactRequest Evaluator StudentRecord",
    "types.formats": "load_distilled save_distilled",
    "types.method": "Method Task",
    "types.network": "Architecture Network Networks",
    "types.options": "NameList Options option",
    "types.pool": "Pool",
    "types.preprocessing": "Normalize Preprocessing Whiten",
    "types.problem": "Problem Shape Split",
    "types.seeds": "Streams",
}
_HOME_OF = {name: f"harness.{module}" for module, names in _HOMES.items() for name in names.split()}

__version__ = "0.1.0"
__all__ = ["Register", "hookimpl", *_HOME_OF]  # noqa: PLE0604


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOME_OF:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
