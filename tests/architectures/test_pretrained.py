"""Pretrained weights of torchvision's and timm's classifiers, from files and caches; timm's own classifiers."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from studies import ddbench
from torch import nn
from torchvision.models import get_model

from harness.errors import DataError, UsageError
from harness.system.packages import lacking_package

SMALL = "shufflenet_v2_x0_5"
without_timm = pytest.mark.skipif(
    bool(lacking_package({"timm": "ddbench[timm]"})), reason="timm is not installed: pip install 'ddbench[timm]'"
)
SIGN, ROWS = "◊", ("--rows", "method", "--format", "markdown")


def trained(classes=10):
    """A classifier of torchvision whose weights are those of nobody's initialisation."""
    model = get_model(SMALL, weights=None, num_classes=classes)
    with torch.no_grad():
        for number, tensor in enumerate(model.state_dict().values()):
            tensor.copy_(torch.full_like(tensor, number % 7) + 1)
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights for ten and for a thousand classes, in both formats."""
    folder = tmp_path_factory.mktemp("weights")
    state = trained().state_dict()
    torch.save(state, folder / "ten.pth")
    torch.save({"state_dict": trained(1000).state_dict(), "epoch": 3}, folder / "thousand.pt")
    save_file(state, folder / "ten.safetensors")
    return folder


@pytest.mark.parametrize("name", ["ten.pth", "ten.safetensors"])
def test_all_weights_are_those_of_the_file(build, files, name):
    network, state = build(f"torchvision[model={SMALL},weights={files / name}]", (3, 32, 32)), trained().state_dict()
    own = {
        key.removeprefix("trunk.").replace("classifier", "fc"): tensor for key, tensor in network.state_dict().items()
    }
    assert own.keys() == state.keys()
    assert all(torch.equal(own[key], state[key]) for key in state)


def test_a_head_of_other_classes_starts_at_random_and_nothing_else_does(build, files):
    name, plain = f"torchvision[model={SMALL},weights={files / 'thousand.pt'}]", f"torchvision[model={SMALL}]"
    first, second, fresh = build(name, (1, 32, 32), 1), build(name, (1, 32, 32), 2), build(plain, (1, 32, 32), 1)
    assert torch.equal(first.classifier.weight, fresh.classifier.weight), "as without weights"
    assert not torch.equal(first.classifier.weight, second.classifier.weight)
    assert all(map(torch.equal, first.trunk.state_dict().values(), second.trunk.state_dict().values()))
    assert not torch.equal(first.trunk.conv1[0].weight, fresh.trunk.conv1[0].weight)


def test_a_network_without_memory_has_the_same_shapes(architecture, files):
    with torch.device("meta"):
        network = architecture(f"torchvision[model={SMALL},weights={files / 'ten.pth'}]").network((3, 32, 32), 10)
    assert network.classifier.weight.is_meta


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (lambda state: {"fc.weight": state["fc.weight"]}, r"do not fit .*: the file has no conv1\.0\.weight"),
        (lambda state: {**state, "more.weight": torch.ones(1)}, r"the file has more\.weight, which the model has not"),
        (
            lambda state: {**state, "conv1.0.weight": torch.ones(24, 1, 3, 3)},
            r"conv1\.0\.weight is \(24, 1, 3, 3\) there and \(24, 3, 3, 3\) here",
        ),
        (lambda state: {"epoch": 3}, "is not a state dictionary of weights"),
        (
            lambda state: nn.Linear(2, 2),
            r"is not a state .* alone: save model\.state_dict\(\) of a whole model, or name",
        ),
        (
            lambda state: {**state, "conv1.0.weight": torch.full((24, 3, 3, 3), torch.nan)},
            r"has values in conv1\.0\.weight that are not finite: name another file",
        ),
        (
            lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
            "are those of a model in DataParallel: take 'module.' off their names",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(build, tmp_path, content, line):
    torch.save(content(trained().state_dict()), tmp_path / "other.pth")
    with pytest.raises(DataError, match=line) as caught:
        build(f"torchvision[model={SMALL},weights={tmp_path / 'other.pth'}]", (3, 32, 32))
    assert "\n" not in str(caught.value)
    assert "other.pth" in str(caught.value)


def test_heads_for_training_and_counters_may_differ(build, tmp_path):
    state = {name: tensor for name, tensor in trained().state_dict().items() if "num_batches" not in name}
    torch.save({**state, "aux1.fc.weight": torch.ones(2)}, tmp_path / "old.pth")
    assert build(f"torchvision[model={SMALL},weights={tmp_path / 'old.pth'}]", (3, 32, 32)).training


def test_torchs_cache_is_read_and_nothing_is_fetched(build, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    name = f"torchvision[model={SMALL},weights=default]"
    with pytest.raises(DataError, match=r"not in torch's cache: put https://.*shufflenetv2.*\.pth into .*checkpoints"):
        build(name, (3, 32, 32))
    (tmp_path / "checkpoints").mkdir()
    torch.save(trained(1000).state_dict(), tmp_path / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth")
    assert torch.equal(build(name, (3, 32, 32)).trunk.conv1[0].weight, trained().conv1[0].weight)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (f"torchvision[model={SMALL},weights=IMAGENET1K_V9]", "no such weights: did you mean 'IMAGENET1K_V1'"),
        (f"torchvision[model={SMALL},weights=gone.pth]", r"weights=gone\.pth cannot be read: No such file"),
    ],
)
def test_names_of_weights_are_checked(architecture, name, line):
    with pytest.raises(UsageError, match=line):
        architecture(name)


def test_keys_follow_the_content_and_those_without_weights_stay(architecture, files, tmp_path):
    def identity(name):
        return architecture(name).options.as_json()

    copy = tmp_path / "copy.pth"
    copy.write_bytes((files / "ten.pth").read_bytes())
    assert identity(f"torchvision[model={SMALL}]") == {"model": SMALL}
    first = identity(f"torchvision[model={SMALL},weights={files / 'ten.pth'}]")
    assert re.fullmatch("sha256:[0-9a-f]{64}", first["weights"])
    assert identity(f"torchvision[model={SMALL},weights={copy}]") == first
    torch.save(trained(3).state_dict(), copy)
    assert identity(f"torchvision[model={SMALL},weights={copy}]") != first
    of_library = identity(f"torchvision[model={SMALL},weights=default]")["weights"]
    assert of_library == "shufflenetv2_x0.5-f707e7126e.pth"


def test_pretrained_students_are_marked_and_others_are_not(files, tmp_path):
    network = f"torchvision[model={SMALL}]"
    weights = f"torchvision[model={SMALL},weights={files / 'thousand.pt'}]"
    done = ddbench(
        "run", "--method", "random", "--dataset", "digits", "--evaluator", "plain[epochs=1]", "--students", "1",
        "--architecture", f"{network},{weights}", "--executor", "inline", "--store", tmp_path / "store", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    table = ddbench("table", tmp_path / "store", *ROWS).output
    assert table.count(SIGN) == 2, "a number and the caption"
    assert "a network was pretrained (weights=)" in table
    rows = {row["architecture"]: row.get("real_data", False) for row in json.loads(done.stdout)["rows"]}
    assert rows == {network: False, weights: True}


def test_a_pretrained_pool_is_marked_and_compared_with_none(files, tmp_path):
    pool = f"single[main=torchvision[model={SMALL},weights={files / 'thousand.pt'}]]"
    done = ddbench(
        "run", "--method", "dm[batch_real=4]", "--pool", "single[main=mlp]", "--pool", pool, "--dataset", "digits",
        "--evaluator", "plain[epochs=1]", "--students", "1", "--architecture", "mlp", "--iterations", "1",
        "--executor", "inline", "--store", tmp_path / "store",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout.count(SIGN) == 2, "a number and the caption"
    assert " against " not in done.stdout.replace("set against those", "")


# timm


@without_timm
@pytest.mark.parametrize(
    ("model", "shape"), [("test_resnet", (3, 32, 32)), ("test_vit", (1, 32, 32)), ("test_convnext", (3, 64, 64))]
)
def test_a_model_of_timm_taken_apart_is_the_model(build, model, shape):
    import timm

    network = build(f"timm[model={model}]", shape).eval()
    sized = {"img_size": shape[1:]} if model == "test_vit" else {}
    whole = timm.create_model(model, num_classes=10, **sized).eval()
    head = whole.pretrained_cfg["classifier"]
    state = network.state_dict()
    whole.load_state_dict({
        key.replace("trunk.", "", 1) if key.startswith("trunk.") else f"{head}.{key.partition('.')[2]}": tensor
        for key, tensor in state.items()
    })  # fmt: skip
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(images), whole(images.expand(-1, 3, -1, -1)), rtol=0, atol=0)
        taps = network.features(images, taps=network.taps)
    assert len(taps) > 2
    assert isinstance(network.classifier, nn.Linear)


@without_timm
def test_weights_of_timm_come_from_a_file_or_the_hubs_cache(build, architecture, tmp_path, monkeypatch):
    import timm

    with torch.random.fork_rng():
        model = timm.create_model("test_resnet", num_classes=1000)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    from_file = build(f"timm[model=test_resnet,weights={tmp_path / 'model.safetensors'}]", (3, 32, 32))
    assert torch.equal(from_file.trunk.layer1[0].conv1.weight, model.layer1[0].conv1.weight)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda place, name: None)
    with pytest.raises(
        DataError, match=r"`hf download timm/test_resnet\.r160_in1k model\.safetensors` puts them there"
    ):
        build("timm[model=test_resnet,weights=default]", (3, 32, 32))
    cached = {("timm/test_resnet.r160_in1k", "model.safetensors"): str(tmp_path / "model.safetensors")}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *names: cached[names])
    from_cache = build("timm[model=test_resnet,weights=r160_in1k]", (3, 32, 32))
    assert all(map(torch.equal, from_cache.trunk.state_dict().values(), from_file.trunk.state_dict().values()))
    assert architecture("timm[model=test_resnet,weights=default]").options.as_json()["weights"] == "r160_in1k"
    assert architecture("timm[model=test_resnet,weights=default]").pretrained


@without_timm
@pytest.mark.parametrize(
    ("name", "shape", "error", "line"),
    [
        ("timm[model=test_resnets]", None, UsageError, "no such classifier: did you mean .*'test_resnet'"),
        ("timm[model=test_resnet.r160_in1k]", None, UsageError, "there is no such classifier"),
        ("timm[model=test_resnet,weights=r160]", None, UsageError, "no such weights: did you mean 'r160_in1k'"),
        ("timm[model=test_resnet]", (4, 32, 32), DataError, "takes grey or colour images, not 4 channels"),
        ("timm[model=deit_tiny_distilled_patch16_224]", (3, 32, 32), DataError, "does not end in one linear layer"),
        ("timm[model=test_vit]", (3, 40, 40), DataError, "cannot use images of 40x40: resize them"),
    ],
)
def test_what_timm_cannot_do_is_one_line(build, name, shape, error, line):
    with pytest.raises(error, match=line) as caught:
        build(name, shape)
    assert "\n" not in str(caught.value)


def test_without_timm_the_remedy_is_said(architecture, monkeypatch):
    monkeypatch.setattr("harness.system.packages._is_installed", lambda module: False)
    with pytest.raises(UsageError, match=r"timm\[model=resnet10t\] needs the package timm, .*'ddbench\[timm\]'"):
        architecture("timm[model=resnet10t]")
