"""Networks on the real data in a store: made once for all who ask, first, resumed, estimated, verified, refused."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from studies import EVALUATOR, Cut, Heard, ddbench, leftovers, numbers, records, small_run, small_words, stored_parts

import harness
from harness import Evaluator, NamedAugment, Options, RealNetwork, Recipe, option
from harness.planning.planner import Planner
from harness.planning.request import Request
from harness.plugins.discovery import plugins
from harness.plugins.registry import Entry
from harness.running.jobs import ArtifactJob, SetJob, jobs_of

CONVNET, MLP = "convnet[width=4,depth=2]", "mlp[width=4]"
TUTORED = "tutored[epochs=2]"
STUDY = {"method": "warm[batch=4]", "evaluator": TUTORED}
ENTRIES = [
    Entry("method", "warm", "acme_distill.warm:Warm", "", "acme", "1"),
    Entry("method", "surest", "acme_distill.surest:Surest", "", "other", "1"),
    Entry("evaluator", "tutored", "acme_distill.tutored:Tutored", "", "third", "1"),
    Entry("evaluator", "asking", f"{__name__}:Asking", "", "third", "1"),
]


class AskingOptions(Options):
    last: int = option(1, "the last snapshot of one epoch of training")
    breaks: bool = option(False, "the augmentation cannot be built")


class Asking(Evaluator[AskingOptions]):
    """Asks for a network, and never evaluates anything."""

    Options = AskingOptions

    def protocol(self, problem, architecture):
        return "asking v1"

    def artifact(self, student):
        broken = NamedAugment("broken", lambda problem: {}["nothing"])
        return RealNetwork(
            architecture=CONVNET,
            recipe=Recipe(epochs=1),
            snapshots=(self.options.last,),
            augmentation=broken if self.options.breaks else None,
        )

    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        raise AssertionError("its network cannot be made")


@pytest.fixture(autouse=True)
def tutors(monkeypatch):
    """The components of the third party, each as if another plugin had brought it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "thirdparty"))
    monkeypatch.setattr(plugins().registry, "entries", [*plugins().registry.entries, *ENTRIES])


def run(data, store, **changes):
    return small_run(data, store, **{**STUDY, **changes})


def artifacts(store):
    return [record for record in records(store).values() if record["kind"] == "artifact"]


def plan_of(data, **changes):
    asked = {**STUDY, "architecture": "mlp[width=8]", "pool": f"single[main={CONVNET}]", "iterations": 2, **changes}
    listed = {key: value if isinstance(value, list) else [value] for key, value in asked.items()}
    request = Request(dataset=(f"arrays[path={data}]",), students=2, distillations=2, **listed)
    return Planner(request, plugins().registry).plan()


def test_one_network_for_methods_coresets_evaluators_and_pools(data, tmp_path):
    """The key depends on the training, and not on who asks, through which pool, for which set or student."""
    heard = Heard()
    run(data, tmp_path, method=["warm[batch=4]", "surest"], reporter=heard)
    (network,) = artifacts(tmp_path)
    assert heard.done[0].label == network["label"] == f"real network 0 of {CONVNET} on arrays[path={data}], 4 epochs"
    assert [component["name"] for component in network["provenance"]["components"]] == [CONVNET]
    for changes in (
        {"pool": f"mix[of={CONVNET}:1]", "ipc": 2, "distillations": 2, "students": 1},
        {"method": "random", "evaluator": TUTORED.replace("epochs=2", "epochs=3"), "students": 3},
        {"precision": "bf16", "architecture": MLP},
    ):
        run(data, tmp_path, **changes)
        assert artifacts(tmp_path) == [network], changes
    for count, changes in enumerate(
        (
            {"method": "random", "evaluator": "tutored[epochs=2,tutor_epochs=3]"},
            {"method": "random", "evaluator": "tutored[epochs=2,cutmix=0.5]"},
            {"method": "random", "evaluator": f"tutored[epochs=2,teacher={MLP}]"},
            {"method": "random", "seed": 1},
            {"method": "random", "score_on": "validation"},
        ),
        2,
    ):
        run(data, tmp_path, **{**changes, "students": 1})
        assert len(artifacts(tmp_path)) == count, changes
    assert not leftovers(tmp_path)


def test_a_pool_has_networks_of_each_architecture_that_it_draws(data, tmp_path):
    result = run(data, tmp_path, pool=f"mix[of={CONVNET}:0.5+{MLP}:0.5]", evaluator=EVALUATOR, iterations=6)
    (row,) = result.rows
    assert set(row["draws"]) == {CONVNET, MLP}
    assert {record["identity"]["architecture"]["name"] for record in artifacts(tmp_path)} == {"convnet", "mlp"}


def test_the_record_says_how_good_the_network_is_and_the_file_holds_its_snapshots(data, tmp_path):
    run(data, tmp_path / "test", method="random")
    run(data, tmp_path / "held", method="random", score_on="validation")
    (of_test,), (held,) = artifacts(tmp_path / "test"), artifacts(tmp_path / "held")
    assert of_test["result"].keys() == {"loss", "train_accuracy", "test_accuracy"}
    assert held["result"].keys() == {"loss", "train_accuracy", "validation_accuracy"}
    assert held["label"].endswith("without validation, 4 epochs")
    assert held["identity"]["problem"] != of_test["identity"]["problem"], "the split that is held out is not trained on"
    (path,) = (tmp_path / "test" / "cells").rglob("artifact.safetensors")
    with safe_open(path, framework="pt") as file:
        assert {name.partition(".")[0] for name in file.keys()} == {"0", "4"}  # noqa: SIM118
    done = ddbench("results", "show", of_test["key"][:12], "--store", tmp_path / "test")
    assert "train_accuracy: " in done.stdout


def test_its_jobs_come_before_those_of_sets_which_wait_for_them(data):
    jobs = jobs_of(plan_of(data, method=["warm[batch=4]", "random"], evaluator=[TUTORED, EVALUATOR]))
    (first, *others) = jobs
    assert isinstance(first, ArtifactJob)
    assert len(first.cells) == 1
    assert all(isinstance(job, SetJob) and job.after == (first.key,) for job in others)
    assert not any(cell.kind == "artifact" for job in others for cell in job.cells), "no cell belongs to two jobs"
    (alone, *rest) = jobs_of(plan_of(data, method="random", evaluator=TUTORED))
    assert (alone.key, alone.cells) == (first.key, first.cells), "the same job whoever asks"
    assert all(job.after == (alone.key,) for job in rest)


@pytest.mark.parametrize("after", [1, 4])
def test_a_killed_training_goes_on_after_its_last_epoch(data, tmp_path, after):
    run(data, tmp_path / "whole")
    with stored_parts(after) as stored, pytest.raises(Cut):
        run(data, tmp_path / "cut")
    assert {path.name.partition("-")[0] for path in (tmp_path / "cut" / "partial").glob("*/*")} >= {"training"}
    with stored_parts() as again:
        run(data, tmp_path / "cut")
    # Four epochs and the last one's snapshot, which is stored again if the epoch was not.
    assert again == [*["training"] * (4 - stored.count("training") - 1), "snapshot-4", "training"]
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    assert not list((tmp_path / "cut" / "partial").iterdir())


def test_the_plan_says_what_is_made_first_and_how_much_room_it_takes(data, tmp_path):
    done = ddbench("run", *small_words(data, tmp_path, **STUDY), "--dry-run")
    assert done.exit_code == 0, done.output
    assert f"missing  artifact   real network 0 of {CONVNET} on" in done.stdout
    what = f"1 real network of {CONVNET} (0.0 MB each); 0.00 GB in all, less than a second"
    assert f"to make first: {what}" in done.output
    words = {**STUDY, "method": "random", "max_storage": "0.000001"}
    done = ddbench("run", *small_words(data, tmp_path, **words))
    assert done.exit_code == 2
    assert "more than --max-storage 1e-06: ask for fewer experts, epochs or snapshots" in done.stderr
    run(data, tmp_path)
    again = ddbench("run", *small_words(data, tmp_path, **STUDY), "--dry-run")
    assert "to make first" not in again.output


def test_a_set_from_a_file_is_evaluated_with_the_same_network(data, tmp_path):
    run(data, tmp_path / "store", method="random")
    (file,) = (tmp_path / "store" / "cells").rglob("set.safetensors")
    words = {"dataset": f"arrays[path={data}]", "architecture": MLP, "students": 2, "evaluator": TUTORED}
    result = harness.evaluate(file, store=tmp_path / "store", **words)
    assert {cell["state"] for cell in result.cells} == {"done"}
    assert len(artifacts(tmp_path / "store")) == 1


def test_a_store_is_verified_packed_without_networks_and_adopted(data, tmp_path, other_code):
    run(data, tmp_path / "store")
    done = ddbench("results", "verify", "--store", tmp_path / "store")
    assert done.exit_code == 0
    assert "0 things wrong" in done.stdout
    done = ddbench("results", "pack", tmp_path / "store", tmp_path / "packed", "--without-artifacts")
    assert done.exit_code == 0, done.output
    listed = json.loads(ddbench("results", "list", "--store", tmp_path / "packed", "--json").stdout)["cells"]
    assert sorted({row["kind"] for row in listed}) == ["distilled", "student"]
    other_code("convnet")
    done = ddbench("results", "adopt", "--store", tmp_path / "store", "--check", "1")
    assert done.exit_code == 0, done.output
    (old, new) = sorted(artifacts(tmp_path / "store"), key=lambda record: "adopted" in record["provenance"])
    assert new["files"] == old["files"]
    assert new["result"] == old["result"]


def test_a_network_that_cannot_be_made_blocks_those_who_need_it_alone(data, tmp_path):
    result = run(data, tmp_path, method="random", evaluator=["asking[breaks=true]", EVALUATOR])
    states = {}
    for cell in result.cells:
        states.setdefault(cell["state"], []).append(cell["label"])
    assert [label.partition(" on ")[0] for label in states["failed"]] == [f"real network 0 of {CONVNET}"]
    assert len(states["blocked"]) == 2
    assert all(label.startswith("asking") for label in states["blocked"])
    assert len(states["done"]) == 3


REFUSED = {
    "there is no architecture 'nonsense'": {"evaluator": "tutored[teacher=nonsense]"},
    "artifact() raised ValueError: snapshot 2 is not among the 1 epochs": {"evaluator": "asking[last=2]"},
    "artifact() raised ValueError: snapshot -1 is not among the 1 epochs": {"evaluator": "asking[last=-1]"},
    "there is no architecture 'folly'": {"method": "surest[network=folly]"},
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_request_that_cannot_be_met_is_refused_before_any_work(data, tmp_path, words):
    done = ddbench("run", *small_words(data, tmp_path, **{**STUDY, **REFUSED[words]}))
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "cells").exists()
