"""Sharing through a stand-in of the hub: what is uploaded, what never is, and the same accuracy elsewhere."""

import getpass
import json
import re
import shlex
import socket
import struct
from pathlib import Path

import pytest
import torch
from hub_stand_in import TOKEN, stand_in
from safetensors.torch import save
from studies import ARCHITECTURE, EVALUATOR, KD, ddbench, records, small_run, stripes, write_arrays
from test_run import assert_refused

import harness
from harness.report.cards.evaluations import EVALUATIONS, Evaluation, evaluations_in
from harness.report.cards.public_facts import Private, public_text

huggingface_hub = pytest.importorskip("huggingface_hub")

HOST, USER, ADDRESS = "gpu-node-7", "jane-doe", "jane.doe@lab.example"
REPO = "jane/dc-stripes"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on loopback, a token for it, a cache of one's own, and names of host and user that can be looked for."""
    with stand_in() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(socket, "gethostname", lambda: HOST)
        monkeypatch.setattr(getpass, "getuser", lambda: USER)
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The home of a user, which holds images and a store with two distillations under two evaluators."""
    home = tmp_path_factory.mktemp(USER)
    small_run(write_arrays(home / "stripes.npz"), home / "store", evaluator=[EVALUATOR, KD], distillations=2,
              set=["convnet.width=4"])  # fmt: skip
    return home


@pytest.fixture(scope="module")
def keys(home):
    """The keys of both sets by the index of their distillation."""
    sets = [record for record in records(home / "store").values() if record["kind"] == "distilled"]
    return {record["result"]["distillation"]: record["key"] for record in sets}


@pytest.fixture
def published(hub, home, keys, monkeypatch):
    """The first set, published from its owner's home."""
    monkeypatch.setenv("HOME", str(home))
    result = ddbench("publish", keys[0], REPO, "--store", home / "store")
    assert result.exit_code == 0, result.output
    return result


def files_of(hub, name=REPO):
    return hub.files(name)[1]


def accuracies(store, evaluator="plain"):
    """The accuracies of the students in a store on sets of distillation 0, by architecture and in order."""
    scored = [record["result"] for record in records(store).values() if record["kind"] == "student"]
    mine = [each for each in scored if each["evaluator"].startswith(evaluator) and each["distillation"] == 0]
    return [each["accuracy"] for each in sorted(mine, key=lambda each: each["student"])]


def exact(card):
    """What the card states of each student."""
    return json.loads(re.search(r"```json\n(.+?)```", card, re.DOTALL)[1])


def test_three_files_are_committed_at_once(hub, published, home, keys):
    oid, files = hub.files(REPO)
    assert set(files) == {"set.safetensors", "images.png", "README.md"}
    assert len(hub.repositories[REPO]) == 1
    dataset = f"arrays[path={home / 'stripes.npz'}]"
    assert f"`ddbench eval hf:{REPO}@{oid} --dataset '{dataset}'` evaluates it" in published.stdout
    assert f"{hub.endpoint}/datasets/{REPO}" in published.stdout
    assert files["images.png"].startswith(b"\x89PNG")
    (file,) = (home / "store" / "cells").glob(f"??/{keys[0]}*/set.safetensors")
    (home / "fetched.safetensors").write_bytes(files["set.safetensors"])
    ours, theirs = harness.load_distilled(file), harness.load_distilled(home / "fetched.safetensors")
    assert torch.equal(ours.images, theirs.images)
    assert theirs.provenance["cell"] == keys[0]


def test_the_card_has_the_front_matter_of_the_hub(hub, published):
    card = files_of(hub)["README.md"].decode()
    front, _, rest = card.removeprefix("---\n").partition("\n---\n")
    assert 'license: "unknown"' in front.splitlines()
    assert "- image-classification" in front.splitlines()
    read = huggingface_hub.DatasetCard(card).data.to_dict()  # as the hub reads it
    assert read["tags"] == ["dataset-distillation", "ddbench"]
    assert read["pretty_name"] == "dc[batch_real=4] on arrays[path=PATH], 1 per class"
    assert rest.startswith("\n# dc[batch_real=4] on arrays[path=PATH], 1 per class\n")
    for line in ("| preprocessing | `auto`", "| parametrisation | plain images |", "| status | `done` |",
                 "| storage | 24,576 bits (768 numbers of 32 bits) |", "| iterations | `2` |"):  # fmt: skip
        assert line in card
    assert "`ddbench` `0.2.0`" in card
    assert "![The distilled images, a row for each class](images.png)" in card


def test_the_card_has_both_spreads(hub, published, home):
    """By formulas: the standard deviation of the students, and that of the means of both distillations."""
    card = files_of(hub)["README.md"].decode()
    scored = [record["result"] for record in records(home / "store").values() if record["kind"] == "student"]
    of_sets = [[each["accuracy"] for each in scored if (each["distillation"], each["evaluator"][:5]) == (d, "plain")]
               for d in (0, 1)]  # fmt: skip
    tensors = [torch.tensor(values, dtype=torch.float64) for values in of_sets]
    means = torch.stack([values.mean() for values in tensors])
    (row,) = [line for line in card.splitlines() if line.startswith(("| `plain", "| `plain["))]
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert cells[3] == f"{100 * float(means[0]):.1f}"
    assert cells[4] == f"±{100 * float(tensors[0].std()):.1f}"
    assert cells[5] == f"±{100 * float(means.std()):.1f} of 2"
    assert cells[6] == "2"


def test_nothing_private_leaves_the_machine(hub, published, home):
    """Every byte of every request, and every file that was sent in base64."""
    assert len(hub.sent) >= 15
    everything = b"\n".join(hub.sent)
    assert b"dc[batch_real=4]" in everything
    for private in (HOST, USER, str(home), str(Path.home()), str(home / "store"), str(Path.cwd()), "stripes.npz"):
        assert private.encode() not in everything, private


def test_another_environment_gets_the_accuracy_of_the_card(hub, published, home, tmp_path, monkeypatch):
    """It knows the repository's name, reads the command in the card, and has a copy of the images elsewhere."""
    monkeypatch.chdir(tmp_path)
    card = files_of(hub)["README.md"].decode()
    images = write_arrays(tmp_path / "copy.npz")
    commands = [shlex.split(line) for line in card.splitlines() if line.startswith("ddbench eval")]
    assert len(commands) == 2
    stated = {part["evaluator"]: part["accuracies"] for part in exact(card)}
    for words in commands:
        typed = [word.replace("PATH", str(images)) for word in words[1:]]
        done = ddbench(*typed, "--store", "other", "--json")
        assert done.exit_code == 0, done.output
        evaluator = words[words.index("--evaluator") + 1]
        assert stated[evaluator] == accuracies(tmp_path / "other", evaluator.partition("[")[0])
        assert stated[evaluator] == accuracies(home / "store", evaluator.partition("[")[0])
    assert "Each gives the accuracies above: bit by bit" in card


def test_a_later_distillation_promises_no_bits(hub, home, keys):
    assert ddbench("publish", keys[1], REPO, "--store", home / "store").exit_code == 0
    card = files_of(hub)["README.md"].decode()
    assert "expect them within the spread between students" in card
    assert "bit by bit" not in card


def test_a_revision_is_pinned_and_a_new_one_does_not_move_it(hub, published, home, keys, data, tmp_path):
    first, _ = hub.files(REPO)
    assert ddbench("publish", keys[1], REPO, "--store", home / "store").exit_code == 0
    assert len(hub.repositories[REPO]) == 2
    words = ["--dataset", f"arrays[path={data}]", "--evaluator", EVALUATOR, "--architecture", ARCHITECTURE,
             "--students", "2", "--json", "--store"]  # fmt: skip
    pinned = ddbench("eval", f"hf:{REPO}@{first}", *words, tmp_path / "pinned")
    assert pinned.exit_code == 0, pinned.output
    assert f"hf:{REPO} at commit {first}" in pinned.stderr
    assert accuracies(tmp_path / "pinned") == accuracies(home / "store")


def test_a_file_has_the_students_that_the_store_holds_on_it(hub, data, tmp_path):
    """A set of another code base, evaluated here and then shared."""
    images, labels = stripes(1, seed=5)
    pair = [torch.from_numpy(images)[:, None] / 255, torch.from_numpy(labels)]
    torch.save({"data": [pair], "accs_all_exps": {"ConvNet": [0.5, 0.25]}}, tmp_path / "res.pt")
    dataset = ("--dataset", f"arrays[path={data},normalize=mnist]")
    words = ["--evaluator", EVALUATOR, "--architecture", ARCHITECTURE, "--students", "2", "--store", tmp_path / "store"]
    assert ddbench("eval", tmp_path / "res.pt", *dataset, *words).exit_code == 0
    result = ddbench("publish", tmp_path / "res.pt", REPO, *dataset, "--store", tmp_path / "store", "--license", "mit")
    assert result.exit_code == 0, result.output
    card = files_of(hub)["README.md"].decode()
    assert 'license: "mit"' in card
    assert exact(card)[0]["accuracies"] == accuracies(tmp_path / "store")
    assert b"res.pt" not in b"\n".join(hub.sent)
    # Without a store, what the file states itself.
    mistyped = ddbench("publish", tmp_path / "res.pt", REPO, *dataset, "--store", tmp_path / "none")
    assert_refused(mistyped, "there is no store", "none")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert ddbench("publish", "res.pt", REPO, *dataset).exit_code == 0
    assert "| – | – | `ConvNet` | 37.5 | ±17.7 | – | 2 | – |" in files_of(hub)["README.md"].decode()


def test_a_folder_has_the_same_card_offline(home, keys, tmp_path):
    result = ddbench("convert", keys[0], tmp_path / "folder", "--store", home / "store")
    assert result.exit_code == 0, result.output
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "ddbench eval folder --dataset" in card
    assert "rounded to 8 bits" in card
    assert str(tmp_path) not in card
    assert '"accuracies": [' in card
    assert len(harness.load_distilled(tmp_path / "folder").images) == 3, "it is read as before"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("hf:jane/none", "there is no data set jane/none at http"),
        (f"hf:{REPO}@v9", f"hf:{REPO} has no revision 'v9'"),
        ("hf:jane", "'hf:jane' is no repository: give OWNER/NAME"),
        (f"hf:{REPO}@", "is no repository: give OWNER/NAME"),
        ("hf:jane/empty", "hf:jane/empty has no set.safetensors: it is no set that `ddbench publish` wrote"),
        ("hf:jane/giant", "bytes, and a set takes at most"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(hub, data, tmp_path, name, line):
    hub.repositories |= {REPO: {}, "jane/empty": {}, "jane/giant": {}}
    hub.commit(REPO, {"set.safetensors": b"a"})
    hub.commit("jane/empty", {"README.md": b"nothing"})
    if "giant" in name:
        hub.commit("jane/giant", {"set.safetensors": b"a"})
        hub.sizes["set.safetensors"] = 10**12
    assert_refused(evaluated(name, data, tmp_path), line)


def evaluated(name, data, tmp_path):
    return ddbench("eval", name, "--dataset", f"arrays[path={data}]", "--store", tmp_path / "store")


@pytest.mark.parametrize("kind", ["pickle", "giant header", "other tensors"])
def test_what_is_no_set_is_refused_by_the_reader_of_our_own_format(hub, data, tmp_path, kind):
    torch.save({"images": torch.zeros(3)}, tmp_path / "set.pt")
    content = {
        "pickle": (tmp_path / "set.pt").read_bytes(),
        "giant header": struct.pack("<Q", 2**40) + b"{}",
        "other tensors": save({"weight": torch.zeros(3)}),
    }[kind]
    hub.repositories["jane/odd"] = {}
    commit = hub.commit("jane/odd", {"set.safetensors": content})
    result = evaluated("hf:jane/odd", data, tmp_path)
    origin, line = result.stderr.splitlines()
    assert origin == f"hf:jane/odd at commit {commit}"
    assert line.startswith("ddbench: error: set.safetensors")
    assert result.exit_code == 2


def test_formats_have_no_say_in_what_comes_from_the_hub(hub, data, tmp_path):
    result = ddbench("eval", f"hf:{REPO}", "--from", "npz", "--dataset", f"arrays[path={data}]")
    assert_refused(result, "leave out --from and --entry")


def test_without_a_token_nothing_is_sent(hub, home, keys, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    assert_refused(ddbench("publish", keys[0], REPO, "--store", home / "store"), "there is no token", "HF_TOKEN")
    assert hub.sent == []


def test_a_wrong_token_is_one_line(hub, home, keys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    result = ddbench("publish", keys[0], REPO, "--store", home / "store")
    assert_refused(result, f"{hub.endpoint} does not accept the token for hf:{REPO}", "`hf auth login` or HF_TOKEN")


def test_without_the_extra_both_say_what_to_install(home, keys, data, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    remedy = "needs the package huggingface_hub, which is not installed: pip install 'ddbench[hub]'"
    assert_refused(ddbench("publish", keys[0], REPO, "--store", home / "store"), remedy)
    assert_refused(ddbench("eval", f"hf:{REPO}", "--dataset", f"arrays[path={data}]"), remedy)


def test_an_unreachable_hub_is_one_line(home, keys, data, monkeypatch, tmp_path):
    with stand_in() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert_refused(ddbench("publish", keys[0], REPO, "--store", home / "store"), f"{gone.endpoint} cannot be reached")
    result = ddbench("eval", f"hf:{REPO}", "--dataset", f"arrays[path={data}]", "--store", tmp_path / "store")
    assert_refused(result, f"{gone.endpoint} cannot be reached", "check the network, and HF_ENDPOINT")


def test_a_class_that_is_called_like_the_user_stops_the_upload(hub, home, keys, monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "digits-of-jane")
    monkeypatch.setattr(socket, "gethostname", lambda: "single")  # a word of the pool's name
    result = ddbench("publish", keys[0], REPO, "--store", home / "store")
    assert_refused(result, "contains the host's name, 'single': nothing was uploaded")
    assert hub.sent == []


def test_paths_and_addresses_are_left_out_of_names(tmp_path):
    assert public_text("folder[path=/data/birds,like=cifar10]") == "folder[path=PATH,like=cifar10]"
    assert public_text(f"kd[teacher=torchvision[weights={tmp_path}]]") == "kd[teacher=torchvision[weights=PATH]]"
    assert public_text("~/sets/one.npz") == public_text("../one") == public_text("file:///x") == "PATH"
    assert public_text(f"made by {ADDRESS}") == "made by ADDRESS"
    for public in ("hf[path=jane/birds]", "T-shirt/top", "plain quick v1 + epochs=5", "mix[of=convnet:0.5+mlp:0.5]"):
        assert public_text(public) == public
    (tmp_path / "birds").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path.parent)
        assert public_text(f"folder[path={tmp_path.name}/birds]") == "folder[path=PATH]"


def test_the_last_check_names_the_file_that_has_a_path(tmp_path):
    private = Private((str(tmp_path),), {})
    with pytest.raises(harness.DataError, match=r"README.md would contain the path .*nothing was uploaded"):
        private.check(None, {"README.md": f"see {tmp_path}/x".encode()})


def test_evaluations_of_a_file_from_anybody_add_no_other_option_to_a_command():
    row = Evaluation(evaluator="plain", architecture="mlp", protocol="v1", accuracies=[0.5], options=["--seed", "0"])
    evil = {**row.model_dump(), "options": ["--config", "/etc/passwd"]}
    odd = {**row.model_dump(), "accuracies": [7.0]}
    assert evaluations_in({EVALUATIONS: [evil, odd, 3, row.model_dump()]}) == [row]
    assert evaluations_in({EVALUATIONS: {"a": 1}, "stored_accuracies": {"mlp": [0.25], "x": [9.0]}}) == [
        Evaluation(evaluator=None, architecture="mlp", protocol=None, accuracies=[0.25])
    ]
