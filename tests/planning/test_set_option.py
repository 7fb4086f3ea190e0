"""Options of a component set by its name, wherever it is used."""

import pytest

import harness
from harness.errors import UsageError
from tests.studies import ddbench, records, small_run, small_words, write_arrays


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_arrays(tmp_path_factory.mktemp("data") / "stripes.npz")


def plan(data, tmp_path, **changes):
    from harness.api.runs import plan_request
    from harness.planning.request import request_from
    from tests.studies import SMALL

    return plan_request(request_from({**SMALL, "dataset": f"arrays[path={data}]", "store": tmp_path / "s", **changes}))


def labels(data, tmp_path, **changes):
    return [cell["label"] for cell in plan(data, tmp_path, **changes).cells]


def test_it_reaches_components_in_every_place(data, tmp_path):
    cell_labels = labels(
        data,
        tmp_path,
        method="dc",
        pool="single",
        evaluator="kd",
        set=["dc.batch_real=3", "kd.epochs=2", "convnet.width=4", "convnet.depth=2", "mlp.width=5"],
        architecture=["convnet", "mlp"],
    )
    assert any(label.startswith("dc[batch_real=3] through single on") for label in cell_labels)
    assert any("epochs=2] convnet[width=4,depth=2] student 0" in label for label in cell_labels)
    assert any("epochs=2] mlp[width=5] student 0" in label for label in cell_labels)


def test_it_decides_what_pools_and_teachers_build(data, tmp_path):
    words = {"method": "dc[batch_real=3]", "pool": "single", "evaluator": "kd[epochs=2]", "store": tmp_path / "store"}
    small_run(data, **words, set=["convnet.width=4", "convnet.depth=1"])
    stored = list(records(tmp_path / "store").values())
    (distilled,) = [record for record in stored if record["kind"] == "distilled"]
    assert distilled["history"]["architectures"] == ["convnet[width=4,depth=1]"]
    teachers = [record for record in stored if record["kind"] == "artifact"]
    assert {record["identity"]["architecture"]["options"]["width"] for record in teachers} == {4}


def test_brackets_win_and_defaults_lose(data, tmp_path):
    cell_labels = labels(data, tmp_path, method=["dc[batch_real=5]", "dc"], set="dc.batch_real=3")
    assert any("dc[batch_real=5]" in label for label in cell_labels)
    assert any("dc[batch_real=3]" in label for label in cell_labels)
    result = plan(data, tmp_path, method="dc", evaluator="plain", set="plain.protocol=v1")
    assert any("plain mlp" in cell["label"] for cell in result.cells), "the data set's own default is quick"


def test_the_same_cells_as_with_brackets(data, tmp_path):
    from_set = plan(data, tmp_path, method="dc", set="dc.batch_real=3").cells
    typed = plan(data, tmp_path, method="dc[batch_real=3]").cells
    assert [cell["key"] for cell in from_set] == [cell["key"] for cell in typed]


def test_nested_names_are_values_too(data, tmp_path):
    cell_labels = labels(data, tmp_path, pool="single", set="single.main=mlp[width=6]")
    assert any("single[main=mlp[width=6]]" in label for label in cell_labels)


def test_all_takes_in_what_has_its_required_options_now(data, tmp_path):
    small = ["convnet.width=4", "convnet.depth=1", "main-similar.width=4", "main-similar.depth=1"]
    without = labels(data, tmp_path, pool="all", set=small)
    assert not any("mix" in label for label in without)
    with_mix = labels(data, tmp_path, pool="all", set=[*small, "mix.of=convnet:0.5+mlp:0.5"])
    assert any("through mix[of=convnet:0.5+mlp:0.5]" in label for label in with_mix)


def test_what_nothing_uses_is_noted(data, tmp_path):
    result = plan(data, tmp_path, set=["mtt.experts=2", "dc.lr_img=1"], method="dc")
    assert "--set mtt: nothing here uses mtt" in result.notes
    assert not any("nothing here uses dc" in note for note in result.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dc", "write --set COMPONENT.OPTION=VALUE"),
        ("dc.lr_img", "write --set COMPONENT.OPTION=VALUE"),
        ("dc.lr_img=", "write --set COMPONENT.OPTION=VALUE"),
        ("dcx.lr_img=1", "no component 'dcx'.*dc"),
        ("dc.lr_imgs=1", "no option 'lr_imgs'.*lr_img"),
        ("dc.lr_img=[1,2]", r"a sweep belongs to a name: dc\[lr_img=\[1,2\]\]"),
        ("dc.lr_img=-1", "greater than 0"),
        ("dc.lr_img=fast", "valid number"),
    ],
)
def test_what_cannot_be_meant_is_refused(data, tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        harness.run(method="dc", set=text, dataset=f"arrays[path={data}]", store=tmp_path / "store")


def test_on_the_command_line_and_in_a_config_file(data, tmp_path):
    words = small_words(data, tmp_path / "a", method="dc", set=None)
    result = ddbench("run", *words, "--set", "dc.batch_real=3", "--set", "dc.lr_img=0.2", "--dry-run")
    assert result.exit_code == 0
    assert "dc[lr_img=0.2,batch_real=3]" in result.stdout
    config = tmp_path / "config.toml"
    config.write_text('set = ["dc.batch_real=3", "dc.lr_img=0.2"]\n')
    again = ddbench("run", *words, "--config", config, "--dry-run")
    assert again.stdout.splitlines()[:3] == result.stdout.splitlines()[:3]
