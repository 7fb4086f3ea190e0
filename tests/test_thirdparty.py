"""The package in tests/thirdparty, installed, brings one of everything, and all of it works by name."""

import json
import shutil
from pathlib import Path

import pytest

from tests.forks import ddbench
from tests.installing import environment, install
from tests.studies import numbers, records

PACKAGE = Path(__file__).parent / "thirdparty"
SMALL = "convnet[width=4,depth=2]"
BANDIT = f"bandit[of={SMALL}+patches]"
FACTORISED = "dm[as=dimmed,lr_img=0.1,batch_real=8]"
STUDY = [
    *("run", "--dataset", "shapes", "--method", "centroid", "--method", "dm[batch_real=8]", "--method", FACTORISED),
    *("--pool", BANDIT),
    *("--pool", f"single[main={SMALL}]", "--evaluator", "anchored[epochs=3]", "--evaluator", "plain[epochs=3]"),
    *("--architecture", "patches", "--architecture", "mlp[width=8]", "--students", "2", "--json"),
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder in which it is installed, from a copy: a build leaves its traces."""
    folder = tmp_path_factory.mktemp("thirdparty")
    install(shutil.copytree(PACKAGE, folder / "source"), folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def study(site, tmp_path_factory):
    """The store of a study with all that it brings, what the command printed, and the cells that it heard of."""
    folder = tmp_path_factory.mktemp("study")
    env = environment(
        site, ACME_LOG=str(folder / "log"), ACME_STEPS=str(folder / "steps"), ACME_SETS=str(folder / "sets")
    )
    done = ddbench(*STUDY, "--iterations", "4", "--store", folder / "store", env=env)
    assert done.returncode == 0, done.stderr
    return folder / "store", json.loads(done.stdout), done.stderr, (folder / "log").read_text().splitlines()


def test_it_is_listed_with_its_distribution(site):
    rows = json.loads(ddbench("plugins", "--json", env=environment(site)).stdout)
    (mine,) = [row for row in rows if row["name"] == "acme"]
    kinds = ("architecture", "dataset", "evaluator", "format", "method", "parametrisation", "pool")
    assert (mine["status"], mine["reason"]) == ("active", "")
    assert (mine["distribution"], mine["version"]) == ("acme-distill", "0.4")
    assert mine["hooks"] == ["cell_finished", *(f"register_{kind}s" for kind in kinds), "set_finished", "step"]
    assert mine["contract"] == 2


def test_its_components_keep_the_contracts(site):
    done = ddbench("plugins", "check", "acme", env=environment(site))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("10 components: ")
    for name in (
        *("method centroid", "method surest", "method warm", "pool bandit", "evaluator anchored", "evaluator tutored"),
        *("architecture patches", "dataset shapes", "parametrisation dimmed", "format acme-raw"),
    ):
        assert f"\n{name} (acme_distill." in f"\n{done.stdout}"


def test_all_of_it_is_crossed_with_the_built_in(study):
    _, result, output, _ = study
    assert {cell["state"] for cell in result["cells"]} == {"done"}
    arms = {(row["method"], row["pool"], row["evaluator"], row["architecture"]) for row in result["rows"]}
    through = [BANDIT, f"single[main={SMALL}]"]
    pools = {"centroid": [None], "dm[batch_real=8]": through, FACTORISED: through}
    assert arms == {
        (method, pool, evaluator, architecture)
        for method, through in pools.items()
        for pool in through
        for evaluator in ("anchored[epochs=3]", "plain[epochs=3]")
        for architecture in ("patches", "mlp[width=8]")
    }
    assert "centroid draws no network: a pool is not applicable" in output
    assert {row["protocol"] for row in result["rows"]} == {"anchored v1 + epochs=3", "plain v1 + epochs=3"}


def test_who_made_what_is_part_of_every_record(study):
    providers = {}
    for record in records(study[0]).values():
        for component in record["provenance"]["components"]:
            providers[component["name"].partition("[")[0]] = (
                component["distribution"],
                component["distribution_version"],
            )
        assert record["provenance"]["dataset"]["distribution"] == "acme-distill"
    assert {name for name, (distribution, _) in providers.items() if distribution == "acme-distill"} == {
        "centroid", "bandit", "anchored", "patches", "dimmed",
    }  # fmt: skip
    assert providers["bandit"][1] == "0.4"
    assert providers["dm"][0] == "ddbench"


def test_it_hears_of_every_cell(study):
    _, result, _, heard = study
    assert sorted(line.split()[2] for line in heard) == sorted(cell["key"] for cell in result["cells"])
    assert {line.split()[0] for line in heard} == {"artifact", "distilled", "student"}


def test_it_hears_of_every_step(study):
    store, result, _, _ = study
    steps = [line.split() for line in (store.parent / "steps").read_text().splitlines()]
    sets = [cell["key"] for cell in result["cells"] if cell["kind"] == "distilled"]
    assert sorted((key, int(iteration)) for key, iteration, *_ in steps) == sorted(
        (key, iteration) for key in sets for iteration in range(1, 5)
    )
    assert all(names for _, _, *names in steps)


def test_it_sees_every_set_as_stored_and_as_decoded(study):
    store, result, _, _ = study
    methods = {cell["key"]: cell["label"] for cell in result["cells"] if cell["kind"] == "distilled"}
    seen = {key: (int(bits), int(images)) for key, bits, images in
            map(str.split, (store.parent / "sets").read_text().splitlines())}  # fmt: skip
    assert seen.keys() == methods.keys()
    plain = 32 * 3 * 256
    for key, label in methods.items():
        assert seen[key] == ((plain + 32, 6) if "dimmed" in label else (plain, 3)), label


def test_its_format_is_written_and_evaluated_by_its_content(study, site, tmp_path):
    store, result, _, _ = study
    env = environment(site, DDBENCH_EXECUTOR="inline")
    key = next(cell["key"] for cell in result["cells"] if "dimmed" in cell["label"] and cell["kind"] == "distilled")
    done = ddbench("convert", key, tmp_path / "set.acme", "--store", store, env=env)
    assert done.returncode == 0, done.stderr
    assert "packing by dimmed: 6 decoded images are written" in done.stdout
    (tmp_path / "set.acme").rename(tmp_path / "renamed.bin")
    words = ("--evaluator", "plain[epochs=2]", "--architecture", "mlp[width=8]", "--students", "1", "--json")
    done = ddbench("eval", tmp_path / "renamed.bin", "--dataset", "shapes", *words, "--store", tmp_path / "s", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["status"] == "done"
    done = ddbench("convert", "--help", env=env)
    assert "acme-raw     a head of five numbers" in done.stdout


def test_its_metric_stands_in_the_rows_and_is_compared(study, site):
    store, result, _, _ = study
    for row in result["rows"]:
        assert list(row.get("metrics", {})) == (["loss_ratio"] if row["evaluator"].startswith("anchored") else [])
    words = ("--metric", "loss_ratio", "--by", "architecture", "--baseline", "mlp[width=8]", "--format", "json")
    done = ddbench("compare", store, *words, env=environment(site))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {row["evaluator"] for row in answer["rows"]} == {"anchored[epochs=3]"}
    assert any("without a finite loss_ratio left out" in note for note in answer["notes"])


def test_an_adaptive_pool_goes_on_where_it_stopped(study, site, tmp_path):
    store, result, _, _ = study
    (row, *_) = [row for row in result["rows"] if row["pool"] == BANDIT]
    assert sum(row["draws"].values()) == 4
    copy = shutil.copytree(store, tmp_path / "extended")
    words = ["run", "--dataset", "shapes", "--method", "dm[batch_real=8]", "--pool", BANDIT, "--iterations", "8"]
    words += ["--evaluator", "plain[epochs=3]", "--architecture", "mlp[width=8]", "--students", "2"]
    for into in (copy, tmp_path / "fresh"):
        done = ddbench(*words, "--store", into, env=environment(site, DDBENCH_EXECUTOR="inline"))
        assert done.returncode == 0, done.stderr
    fresh, extended = numbers(tmp_path / "fresh"), numbers(copy)
    assert fresh == {key: extended[key] for key in fresh}
    assert len(extended) > len(fresh)


def test_its_methods_and_its_evaluator_share_networks_on_the_real_data(site, tmp_path):
    words = ["run", "--dataset", "shapes", "--iterations", "2", "--students", "2", "--executor", "inline"]
    words += ["--method", "warm[batch=4]", "--method", "surest", "--pool", f"single[main={SMALL}]", "--pool", BANDIT]
    words += ["--evaluator", "tutored[epochs=2]", "--evaluator", f"tutored[epochs=2,teacher={SMALL},cutmix=0.5]"]
    done = ddbench(*words, "--architecture", "mlp[width=8]", "--store", tmp_path, env=environment(site))
    assert done.returncode == 0, done.stderr
    trained = [record for record in records(tmp_path).values() if record["kind"] == "artifact"]
    names = sorted((record["label"], bool(record["identity"]["real_network"]["augmentation"])) for record in trained)
    # One of the small ConvNet for both methods, both pools and the evaluator; one by CutMix for the other evaluator;
    # and the adaptive pool's second architecture, if it was drawn.
    small = f"real network 0 of {SMALL} on shapes, 4 epochs"
    assert [name for name in names if name[0] == small] == [(small, False), (small, True)]
    assert {label for label, _ in names} <= {small, "real network 0 of patches on shapes, 4 epochs"}
    assert done.stderr.count(f"done     {small}: ") == 2


def test_without_it_everything_else_is_as_before(site, tmp_path):
    env = environment(site, DDBENCH_PLUGINS="mpdd")
    rows = {row["name"]: row for row in json.loads(ddbench("plugins", "--json", env=env).stdout)}
    assert rows["acme"]["status"] == "disabled"
    assert rows["mpdd"]["status"] == "active"
    done = ddbench("run", "--method", "dm", "--pool", "bandit", "--store", tmp_path / "store", env=env)
    assert done.returncode == 2
    assert done.stderr.startswith("ddbench: error: there is no pool 'bandit'")
    assert len(done.stderr.strip().splitlines()) == 1
