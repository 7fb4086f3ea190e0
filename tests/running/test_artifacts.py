"""What methods need made first: planned, announced, shared, resumed, and never made in vain."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save

from harness.errors import UsageError
from harness.running.unfinished_tensors import PartialFiles
from harness.store.cells import Cell
from harness.store.store import Store
from harness.store.unfinished import write_sealed
from tests.studies import (
    POOL,
    Cut,
    Heard,
    ddbench,
    leftovers,
    numbers,
    records,
    small_run,
    small_words,
    stored_parts,
    write_arrays,
)  # fmt: skip
from tests.toy_plugins import registered

MTT = "mtt[experts=2,train_epochs=3,steps=2,expert_epochs=1,max_start_epoch=3,lr_img=1,batch_expert=12]"
CONVNET = "convnet[width=4,depth=2]"
PART = Cell("artifact", {"toy": 1}, "a toy", {"toys.Toy": "1"})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_arrays(tmp_path_factory.mktemp("data") / "stripes.npz")


def run(data, store, **changes):
    return small_run(data, store, **{"method": MTT, "pool": POOL, **changes})


def experts(store):
    """Index and architecture of every expert in a store."""
    identities = (record["identity"] for record in records(store).values() if record["kind"] == "artifact")
    return sorted(
        (identity["request"]["index"], identity["architecture"]["name"])
        for identity in identities
        if identity["request"]["kind"] == "expert"
    )


def test_experts_are_made_once_for_all_pools_sizes_and_distillations(data, tmp_path):
    store = tmp_path / "store"
    run(data, store)
    assert experts(store) == [(0, "convnet"), (1, "convnet")]
    for changes in (
        {"pool": "mix[of=convnet[width=4,depth=2]:1]"},
        {"ipc": 2},
        {"distillations": 2},
        {"evaluator": "kd[epochs=2,teacher=mlp[width=8]]"},
        {"method": MTT.replace("steps=2", "steps=3")},
    ):
        run(data, store, **changes)
        assert len(experts(store)) == 2, changes
    run(data, store, method=MTT.replace("batch_expert=12", "batch_expert=6"))
    assert len(experts(store)) == 4, "another recipe gives others"


def test_an_architecture_that_is_never_drawn_is_never_trained(data, tmp_path):
    store = tmp_path / "store"
    pool = f"mix[of={CONVNET}:0.5+mlp[width=8]:0.4999999+lenet:0.0000001]"
    result = run(data, store, pool=pool, iterations=6)
    (row,) = result.rows
    assert sum(row["draws"].values()) == 6
    assert set(row["draws"]) == {CONVNET, "mlp[width=8]"}
    assert {name for _, name in experts(store)} == {"convnet", "mlp"}
    planned = [cell["label"] for cell in result.cells if cell["kind"] == "artifact"]
    assert len(planned) == len(experts(store))
    assert not any("lenet" in label for label in planned)


def test_experts_take_turns(data, tmp_path):
    """Two iterations on one architecture use two of three experts, and none is made that is not used."""
    run(data, tmp_path / "store", method=MTT.replace("experts=2", "experts=3"))
    assert len(experts(tmp_path / "store")) == 2
    run(data, tmp_path / "store", method=MTT.replace("experts=2", "experts=3"), iterations=3)
    assert len(experts(tmp_path / "store")) == 3


def test_two_iterations_and_two_more_are_four(data, tmp_path):
    run(data, tmp_path / "parts", iterations=2)
    run(data, tmp_path / "parts", iterations=4)
    run(data, tmp_path / "whole", iterations=[2, 4])
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_killed_expert_goes_on_after_its_last_epoch(data, tmp_path, after):
    run(data, tmp_path / "whole")
    with stored_parts(after) as stored, pytest.raises(Cut):
        run(data, tmp_path / "cut")
    left = len(list((tmp_path / "cut" / "partial").glob("*/*.safetensors")))
    assert left == len(stored) - 3 * len(experts(tmp_path / "cut"))
    with stored_parts() as again:
        run(data, tmp_path / "cut")
    assert len(again) == 2 * 3 - len(stored), "no epoch is trained twice"
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    assert not list((tmp_path / "cut" / "partial").iterdir())
    assert not leftovers(tmp_path / "cut")


@pytest.mark.parametrize("damage", ["altered", "truncated", "empty"])
def test_a_part_that_was_damaged_is_made_again(tmp_path, damage):
    notices = []
    parts = PartialFiles(Store(tmp_path).open(), PART, notices.append)
    assert parts.get("epoch-1") is None
    parts.put("epoch-1", {"weights": torch.arange(3.0)})
    parts.put("epoch-10", {"weights": torch.zeros(1)})
    assert torch.equal(parts.get("epoch-1")["weights"], torch.arange(3.0))
    (path,) = tmp_path.glob("partial/*/epoch-1-*")
    whole = path.read_bytes()
    path.write_bytes({"altered": whole[:-1] + b"x", "truncated": whole[:-1], "empty": b""}[damage])
    assert parts.get("epoch-1") is None
    assert notices == [f"{path} was damaged: it is passed over"]
    parts.put("epoch-1", {"weights": torch.arange(4.0)})
    assert torch.equal(parts.get("epoch-1")["weights"], torch.arange(4.0))
    assert len(list(tmp_path.glob("partial/*/*"))) == 2, "the damaged one is gone"


def test_a_part_of_a_different_version_of_the_code_is_made_again(tmp_path):
    notices, store = [], Store(tmp_path).open()
    PartialFiles(store, PART, notices.append).put("epoch-1", {"weights": torch.ones(1)})
    changed = dataclasses.replace(PART, code_digests={"toys.Toy": "2"})
    assert PartialFiles(store, changed, notices.append).get("epoch-1") is None
    assert "made by a different version of the code" in notices[0]


def test_a_part_of_the_first_version_is_made_again(tmp_path):
    """It names the bytes of the code that made it, and whether those computed the same is not known."""
    notices, store = [], Store(tmp_path).open()
    folder = tmp_path / "partial" / PART.key
    folder.mkdir(parents=True)
    head = {"ddbench": json.dumps({"sources": dict(PART.code_digests)})}
    path = write_sealed(folder, "epoch-1", save({"weights": torch.ones(1)}, head))
    assert PartialFiles(store, PART, notices.append).get("epoch-1") is None
    assert notices == [f"{path} was made by a different version of the code: it is passed over"]


def test_room_and_time_are_announced_before_anything_is_made(data, tmp_path):
    heard = Heard()
    run(data, tmp_path / "store", reporter=heard)
    (line,) = [text for text in heard.notices if "expert" in text]
    weights = sum(p.numel() for p in _network().parameters())
    assert f"2 experts of {CONVNET} ({4 * 4 * weights / 1e6:.1f} MB each)" in line
    assert "GB in all, less than a second" in line
    assert "expert" not in "".join(run(data, tmp_path / "store").notes), "nothing is left to be made"


def _network():
    from tests.toys import component

    return component("architecture", CONVNET).network((1, 16, 16), 3)


def test_the_plan_names_them_too(data, tmp_path):
    words = small_words(data, tmp_path / "store", method=MTT, pool=POOL)
    result = ddbench("run", *words, "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.count("missing  artifact   expert") == 2
    assert "to make first: 2 experts of convnet" in result.stdout
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "plan"])
def test_too_much_is_refused_before_anything_is_made(data, tmp_path, dry):
    words = small_words(data, tmp_path / "store", method=MTT, pool=POOL)
    result = ddbench("run", *words, "--max-storage", "0.000001", *dry)
    assert result.exit_code == 2
    assert "more than --max-storage 1e-06" in result.stderr
    assert "experts" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "store").glob("cells/*"))


def test_a_lost_expert_fails_what_needs_it_and_nothing_else(data, tmp_path):
    lost = MTT.replace("batch_expert=12", "lr_expert=1e30")
    result = run(data, tmp_path / "store", method=[lost, "dc[batch_real=4]"])
    assert [row["status"] for row in result.rows] == ["failed", "done"]
    assert any("loss is nan" in reason for reason in result.failed.values())
    failed = [cell["label"] for cell in result.cells if cell["state"] == "failed"]
    assert all(label.startswith("expert") for label in failed)
    blocked = [cell["label"] for cell in result.cells if cell["state"] == "blocked"]
    assert blocked[0].startswith("mtt")


def test_what_an_adaptive_pool_draws_is_made_when_it_is_drawn(data, tmp_path):
    with registered():
        result = run(data, tmp_path / "store", pool=f"wary[first={CONVNET},then=mlp[width=8]]", iterations=3)
    (row,) = result.rows
    assert row["status"] == "done"
    assert row["draws"] == {CONVNET: 1, "mlp[width=8]": 2}
    assert {name for _, name in experts(tmp_path / "store")} == {"convnet", "mlp"}
    assert not [cell for cell in result.cells if cell["kind"] == "artifact"]


def test_records_say_who_provided_what(data, tmp_path):
    run(data, tmp_path / "store", evaluator="kd[epochs=2,teacher=mlp[width=8]]")
    for record in records(tmp_path / "store").values():
        assert record["provenance"]["dataset"]["distribution"] == "ddbench"
        components = record["provenance"]["components"]
        assert all(
            component["distribution"] == "ddbench" and component["distribution_version"] for component in components
        )
        named = {component["name"].partition("[")[0] for component in components}
        if record["kind"] == "distilled":
            assert named == {"mtt", "single", "convnet"}
        elif record["kind"] == "student":
            assert named == {"kd", "mlp"}


def test_settings_and_step_size_are_recorded(data, tmp_path):
    run(data, tmp_path / "store")
    (record,) = [record for record in records(tmp_path / "store").values() if record["kind"] == "distilled"]
    settings = record["result"]["settings"]
    assert settings["steps"] == 2
    assert settings["lr_lr"] == 1e-5
    assert record["result"]["step_size"] == pytest.approx(0.01, rel=0.5)
    assert record["history"]["scalars"]["step_size"][-1] == pytest.approx(record["result"]["step_size"])


def test_impossible_stretches_are_refused(data, tmp_path):
    with pytest.raises(UsageError, match="reach beyond train_epochs=3"):
        run(data, tmp_path / "store", method="mtt[train_epochs=3,max_start_epoch=3,expert_epochs=2]")


def test_what_a_pool_that_adapts_will_ask_for_is_guessed_and_refused_above_the_limit(data, tmp_path):
    pool = (
        f"adaptive[main={CONVNET},others=mlp[width=4],every=1,panel=mlp[width=4],students=1,evaluator=plain[epochs=1]]"
    )
    words = small_words(data, tmp_path / "store", method=MTT, pool=pool, iterations=6, students=1)
    planned = ddbench("run", *words, "--dry-run")
    (line,) = [line for line in planned.stdout.splitlines() if "to make" in line]
    assert "to make first or on the way: about " in line
    # The experts of the search, which are trained on fewer images, and those of its replay.
    weights = sum(p.numel() for p in _network().parameters())
    assert f"about 4 experts of {CONVNET} ({4 * 4 * weights / 1e6:.1f} MB each)" in line
    refused = ddbench("run", *words, "--dry-run", "--max-storage", "0.000001")
    assert refused.exit_code == 2
    assert "about 4 experts" in refused.stderr
    assert "more than --max-storage 1e-06" in refused.stderr
    assert ddbench("run", *words).exit_code == 0
    again = ddbench("run", *words, "--dry-run")
    assert "to make" not in again.stdout, "nothing is left to be made"
