"""The contract kit: the obligations of every plugin's components, as classes that pytest runs.

In a test module of the plugin, once it is installed::

    from harness.testing import PoolContract

    class TestMine(PoolContract):
        name = "mine[share=0.2]"

``ddbench plugins check NAME`` runs the same checks without pytest.
"""

from harness.testing.architectures import ArchitectureContract
from harness.testing.contract import Contract, Outcome
from harness.testing.datasets import DatasetContract
from harness.testing.evaluators import EvaluatorContract
from harness.testing.executors import ExecutorContract
from harness.testing.formats import FormatContract
from harness.testing.methods import MethodContract
from harness.testing.metrics import MetricContract
from harness.testing.parametrisations import ParametrisationContract
from harness.testing.pools import PoolContract
from harness.testing.reports import ReportContract
from harness.testing.trackers import TrackerContract

__all__ = [
    "ArchitectureContract",
    "Contract",
    "DatasetContract",
    "EvaluatorContract",
    "ExecutorContract",
    "FormatContract",
    "MethodContract",
    "MetricContract",
    "Outcome",
    "ParametrisationContract",
    "PoolContract",
    "ReportContract",
    "TrackerContract",
]
