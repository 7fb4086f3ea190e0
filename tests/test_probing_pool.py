"""A third party's pool that asks for probes, written from the guide alone: its module is the guide's own text."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from studies import METHOD, records, small_run

from harness.plugins.discovery import plugins
from harness.plugins.registry import Entry
from harness.testing import PoolContract

GUIDE = Path(__file__).parent.parent / "mpdd_plugins" / "README.md"


@pytest.fixture
def climbing(tmp_path, monkeypatch):
    """The guide's pool is installed."""
    (text,) = re.findall(r'```text\n("""A main architecture whose.*?)```', GUIDE.read_text(), re.DOTALL)
    path = tmp_path / "climbing_of_the_guide.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, path.stem, module)
    entry = Entry("pool", "climbing", f"{path.stem}:Climbing", "climbs by probes", "third", "1")
    monkeypatch.setattr(plugins().registry, "entries", [*plugins().registry.entries, entry])
    return module.Climbing


def test_it_keeps_the_contract(climbing):
    contract = PoolContract()
    contract.name = "climbing"
    outcomes = list(contract.outcomes())
    assert not [outcome for outcome in outcomes if outcome.status == "FAILED"]
    assert sum(outcome.status == "ok" for outcome in outcomes) >= 11, "the checks of probes among them"


def test_it_is_probed_and_replayed(climbing, data, tmp_path):
    probes = "every=2,panel=mlp[width=8],evaluator=plain[epochs=2]"
    pool, store = f"climbing[main=convnet[width=4,depth=1],other=mlp[width=4],{probes}]", tmp_path / "store"
    result = small_run(data, store, method=METHOD, pool=pool, iterations=5, students=1)
    assert not result.failed
    stored = {record["result"]["hold_out"] is None: record for record in records(store).values()
              if record["kind"] == "distilled"}  # fmt: skip
    searched, replayed = stored[False], stored[True]
    shares, share, direction, last = [], 0.5, 1.0, 0.0
    for probe in searched["history"]["probes"]:
        (scores,) = probe["accuracies"].values()
        mean = sum(scores) / len(scores)
        direction = -direction if mean < last else direction
        share, last = min(max(share + direction * 0.1, 0.1), 0.9), mean
        shares += [share] * 2
    assert searched["history"]["scalars"]["main_probability"] == pytest.approx(shares[:5])
    assert replayed["history"]["scalars"]["main_probability"] == searched["history"]["scalars"]["main_probability"]
    assert replayed["history"]["draws"] == searched["history"]["draws"]
