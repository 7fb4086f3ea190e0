"""`ddbench results adopt`: records of older code are stamped as today's if their cells still give the same."""

import dataclasses
import json
import shutil

import pytest
import toy_plugins
from studies import EVALUATOR, KD, Heard, ddbench, numbers, records, small_run

import harness
from harness.store.files.reading import with_checksum, without_checksum
from harness.store.store import Store
from mpdd_plugins.evaluators.plain import Plain

MTT = "mtt[experts=2,train_epochs=3,steps=2,expert_epochs=1,max_start_epoch=3,lr_img=1,batch_expert=12]"


def rewrite(store, change, choose=lambda record: True):
    """Change records in place, with new checksums."""
    for path in (store / "cells").glob("??/*/record.json"):
        record = without_checksum(json.loads(path.read_text()))
        if choose(record):
            change(record)
            path.write_text(json.dumps(with_checksum(record)))


def as_of_the_first_version(record):
    provenance = record["provenance"]
    provenance["sources"] = dict.fromkeys(provenance.pop("code_digests"), "0" * 64)


@pytest.fixture(scope="module")
def before(data, tmp_path_factory):
    """A store of a set, two students of `plain`, two of `kd` and their teachers, as the first version wrote it."""
    store = tmp_path_factory.mktemp("before") / "store"
    small_run(data, store, evaluator=[EVALUATOR, KD])
    rewrite(store, as_of_the_first_version)
    return store


@pytest.fixture
def store(before, tmp_path):
    """A copy to stamp."""
    return shutil.copytree(before, tmp_path / "store")


def adopt(store, *words, check=1):
    done = ddbench("results", "adopt", "--store", store, "--check", check, *words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def stamps(store):
    """The notes on the adoption in the records, by key."""
    made_by = [(record["key"], record["provenance"]) for record in records(store).values()]
    return {key: provenance["adopted"] for key, provenance in made_by if "adopted" in provenance}


def assert_refused(done, store, *parts):
    assert done.exit_code == 1, done.output
    for part in parts:
        assert part in done.stdout
    assert "0 records adopted" in done.stdout
    assert stamps(store) == {}


def test_a_store_of_the_first_version_is_done_and_not_stale(data, store):
    heard = Heard()
    result = small_run(data, store, evaluator=[EVALUATOR, KD], reporter=heard, rerun_stale=True)
    assert {cell["state"] for cell in result.cells} == {"done"}
    assert heard.done == []
    assert not any("different version" in notice for notice in heard.notices)


@pytest.mark.parametrize("has_runs", [True, False])
def test_records_are_stamped_after_the_same_numbers_again(data, store, has_runs):
    if not has_runs:  # as in a store that was published: then the records say what was asked for
        shutil.rmtree(store / "runs")
    old = numbers(store)
    done = adopt(store)
    assert done.exit_code == 0, done.output
    assert "7 records adopted, 0 of today's code before" in done.stdout
    assert "4 cells computed again without a difference, 0 with one" in done.stdout
    new = numbers(store)
    assert {key: new[key] for key in old} == old
    assert {key.replace("-2", "-1") for key in new.keys() - old.keys()} == old.keys()
    assert all(new[key] == old[key.replace("-2", "-1")] for key in new)
    assert "14 records of 7 cells read, 0 things wrong" in ddbench("results", "verify", "--store", store).stdout
    for stamp in stamps(store).values():
        assert len(stamp["checked"]) == 4
        assert set(stamp["previous"].values()) == {"0" * 64}
        assert stamp.keys() == {"at", "checked", "previous", "ddbench"}
    fresh = small_run(data, store.parent / "fresh", evaluator=[EVALUATOR, KD])
    digests = [{record.key: record.provenance.code_digests for record in Store(path).records()}
               for path in (store, fresh.store)]  # fmt: skip
    assert digests[0] == digests[1]
    again = adopt(store)
    assert again.exit_code == 0
    assert "0 cells computed again" in again.stdout
    assert "0 records adopted, 7 of today's code before" in again.stdout
    key = next(iter(stamps(store)))
    assert "adopted:" in ddbench("results", "show", key, "--store", store).stdout


def test_stale_records_are_done_afterwards(data, tmp_path, other_code):
    small_run(data, tmp_path)
    made_by = {key: record["provenance"]["code_digests"] for key, record in records(tmp_path).items()}
    other_code("dc")
    stale = small_run(data, tmp_path)
    assert {cell["state"] for cell in stale.cells} == {"stale"}
    done = adopt(tmp_path)
    assert done.exit_code == 0, done.output
    heard = Heard()
    result = small_run(data, tmp_path, reporter=heard, rerun_stale=True)
    assert {cell["state"] for cell in result.cells} == {"done"}
    assert heard.done == []
    assert {f"{key}-1": stamp["previous"] for key, stamp in stamps(tmp_path).items()} == made_by


def test_code_that_gives_another_number_is_refused(store, monkeypatch):
    evaluate = Plain.evaluate

    def worse(self, *arguments):
        for score in evaluate(self, *arguments):
            yield dataclasses.replace(score, loss=score.loss + 1e-6)

    monkeypatch.setattr(Plain, "evaluate", worse)
    done = adopt(store)
    assert_refused(done, store, "3 cells computed again without a difference, 1 with one")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("differs: ")]
    assert "plain[protocol=quick,epochs=2] mlp[width=8] student" in line
    assert ": loss is " in line
    assert "in the record, and now " in line


def test_a_damaged_set_is_named_where_it_lies_in_the_store(store):
    for file in store.glob("cells/*/*/set.safetensors"):
        file.write_bytes(file.read_bytes() + b"x")
    done = adopt(store)
    assert_refused(done, store, str(store / "cells"), "is missing or was altered")
    assert "ddbench-adopt-" not in done.output


def test_code_that_raises_is_refused(store, monkeypatch):
    def broken(self, *_arguments):
        raise RuntimeError("no more")

    monkeypatch.setattr(Plain, "evaluate", broken)
    assert_refused(adopt(store), store, "it cannot be made any more", "no more")


def test_an_altered_number_is_refused(store):
    def alter(record):
        record["result"]["accuracy"] += 0.25

    rewrite(store, alter, lambda record: record["kind"] == "student" and record["result"]["student"] == 1)
    assert_refused(adopt(store, check=2), store, "accuracy is ", "2 with one")


def test_another_set_is_refused_by_its_tensors(store, data, tmp_path):
    """The set's file and its digest in the record are of another seed; so are its students no longer of that file."""
    other = small_run(data, tmp_path / "other", seed=1, students=1)
    (file,) = other.store.glob("cells/*/*/set.safetensors")
    (own,) = store.glob("cells/*/*/set.safetensors")
    shutil.copyfile(file, own)
    digest = next(record for record in records(other.store).values() if record["kind"] == "distilled")["files"]

    def alter(record):
        record["files"]["set.safetensors"] = digest["set.safetensors"]

    rewrite(store, alter, lambda record: record["kind"] == "distilled")
    done = adopt(store)
    assert_refused(done, store, "set.safetensors holds other values (images)")


def test_a_damaged_record_is_refused_with_the_remedy(store):
    path = next((store / "cells").glob("??/*/record.json"))
    path.write_text(path.read_text().replace('"label": "', '"label": "no '))
    parts = ("was altered (checksum): `ddbench results discard", "0 cells computed again")
    assert_refused(adopt(store), store, *parts)


def test_an_altered_file_gets_no_new_digest_and_its_students_no_stamp(store):
    (picture,) = store.glob("cells/*/*/images.png")
    picture.write_bytes(b"another")
    parts = ("images.png is missing or was altered", "what it was computed from is not adopted")
    assert_refused(adopt(store), store, *parts)


def test_what_cannot_be_computed_here_is_named_and_not_stamped(before, tmp_path, data):
    store = shutil.copytree(before, tmp_path / "store")
    with toy_plugins.registered():
        small_run(data, store, evaluator="scripted", students=1)
    rewrite(store, as_of_the_first_version, lambda record: "code_digests" in record["provenance"])
    done = adopt(store)
    assert done.exit_code == 0, done.output
    assert "not adopted: scripted mlp[width=8] student 0 on dc" in done.stdout
    assert "there is no evaluator 'scripted'" in done.stdout
    assert "7 records adopted" in done.stdout
    assert len(stamps(store)) == 7


def test_a_data_set_that_is_gone_leaves_all_as_it_is(data, tmp_path):
    own = shutil.copyfile(data, tmp_path / "own.npz")
    small_run(own, tmp_path / "store", students=1)
    rewrite(tmp_path / "store", as_of_the_first_version)
    own.unlink()
    assert_refused(adopt(tmp_path / "store"), tmp_path / "store", "0 cells computed again", "own.npz")


def test_a_device_that_is_not_here_leaves_all_as_it_is(store):
    assert_refused(adopt(store, "--device", "cuda:9"), store, "0 cells computed again", "--device cuda:9")


def test_students_of_a_set_that_is_gone_are_not_stamped(store):
    shutil.rmtree(next(store.glob("cells/*/*/set.safetensors")).parent)
    assert_refused(adopt(store), store, "what it was computed from is not in the store")


def test_a_store_that_was_packed_without_sets_is_left_as_it_is(store, tmp_path):
    packed, folder = tmp_path / "packed.ddbench", tmp_path / "unpacked"
    assert ddbench("results", "pack", store, packed, "--without-sets").exit_code == 0
    assert ddbench("results", "unpack", packed, folder).exit_code == 0
    assert_refused(adopt(folder), folder, "0 cells computed again", "set.safetensors of", "is not in the store")
    done = adopt(packed)
    assert done.exit_code == 2
    assert "unpack" in done.stderr


def test_experts_are_computed_again_too(data, tmp_path):
    small_run(data, tmp_path, method=MTT, students=1, iterations=2)
    rewrite(tmp_path, as_of_the_first_version)
    done = adopt(tmp_path)
    assert done.exit_code == 0, done.output
    assert "computing again: expert" in done.stderr
    kinds = {record.kind for record in Store(tmp_path).records() if record.provenance.adopted}
    assert kinds == {"artifact", "distilled", "student"}
    assert stamps(tmp_path).keys() == {record["key"] for record in records(tmp_path).values()}


def test_students_of_a_file_are_computed_again_from_it(data, store, tmp_path):
    file = shutil.copy(next(store.glob("cells/*/*/set.safetensors")), tmp_path / "set.safetensors")
    words = {"dataset": f"arrays[path={data}]", "evaluator": EVALUATOR, "architecture": "mlp[width=8]", "students": 2}
    harness.evaluate(file, **words, store=tmp_path / "scores")
    rewrite(tmp_path / "scores", as_of_the_first_version)
    done = adopt(tmp_path / "scores")
    assert done.exit_code == 0, done.output
    assert len(stamps(tmp_path / "scores")) == 2


def test_the_seed_decides_which_cells_are_checked(before, tmp_path):
    def checked(seed):
        store = shutil.copytree(before, tmp_path / f"store-{len(list(tmp_path.iterdir()))}")
        assert adopt(store, "--seed", seed).exit_code == 0
        return tuple(next(iter(stamps(store).values()))["checked"])

    first = checked(0)
    assert checked(0) == first
    assert any(checked(seed) != first for seed in range(1, 4))


def test_a_store_at_work_is_left_alone(store):
    with Store(store).leases.hold("ab" * 32, "a cell", print):
        done = adopt(store)
    assert done.exit_code == 2
    assert "wait until it is finished" in done.stderr
    assert stamps(store) == {}


def test_usage(tmp_path):
    done = ddbench("results", "adopt", "--store", tmp_path)
    assert done.exit_code == 2
    assert "--check" in done.stderr
    assert adopt(tmp_path / "nowhere").exit_code == 2
    assert adopt(tmp_path, check=0).exit_code == 2
    text = ddbench("results", "adopt", "--help").stdout
    for part in ("--check N", "--seed N", "--device NAME", "--store PATH", "nothing is stamped", "Exit code"):
        assert part in text
