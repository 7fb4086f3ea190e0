"""Whatever a plugin's code raises, and whatever it returns: one line that names it, and everything else goes on."""

import contextlib
import json
import os
import pickle

import pytest
from fake_distributions import POOL, registering

from harness.plugins.discovery import plugins
from harness.plugins.guard import PluginFault, guarded
from harness.plugins.redirection import stdout_to_stderr
from tests.plugins.test_misbehaviour import ARCHITECTURE, DATASET, EVALUATOR, METHOD
from tests.studies import EVALUATOR as SOUND_EVALUATOR
from tests.studies import SMALL, ddbench, records, small_words, write_arrays

RAISED = {
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "SystemExit: 9": "import sys; sys.exit(9)",
    "BaseException: x": "raise BaseException('x')",
    "GeneratorExit": "raise GeneratorExit",
    "ZeroDivisionError": "1 / 0",
    "Odd: its message cannot be made": "class Odd(Exception):\n            __str__ = None\n        raise Odd",
}
GOOD_ARCHITECTURE = """
import torch
from harness import Architecture, Network

class Flat(Network):
    def __init__(self, shape, classes):
        super().__init__()
        self.flat = torch.nn.Flatten()
        self.classifier = torch.nn.Linear(shape[0] * shape[1] * shape[2], classes)

    def features(self, images):
        return self.flat(images)

class Mine(Architecture):
    def network(self, shape, classes):
        return Flat(shape, classes)
"""
OPTIONS = """
import pydantic
from harness import Options, option

class Own(Options):
    value: int = option(1, "a number")

    @pydantic.model_validator(mode="after")
    def check(self):
        BODY
        return self
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_arrays(tmp_path_factory.mktemp("data") / "stripes.npz")


def body(name, arguments, code, decorator=""):
    """A method of `Mine` that does something odd."""
    return f"\n    {decorator}\n    def {name}(self{arguments}):\n        {code}\n"


def installed(distribution, kind, source):
    distribution("bad", registering(kind, "mine", "bad:Mine") + source)


def run(data, store, *more, **changes):
    return ddbench("run", *small_words(data, store, **changes), *more)


def assert_one_line(result, *words):
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("ddbench: error: ")
    for word in words:
        assert word in line


def reasons(store):
    return [json.loads(path.read_text())["reason"] for path in (store / "failures").glob("*.json")]


# --- what is raised ---

ASKED = {
    "pool distribution": ("pool", POOL, body("distribution", ", iteration", "CODE")),
    "pool main": ("pool", POOL, body("main", "", "CODE", "@property")),
    "evaluator protocol": ("evaluator", EVALUATOR, body("protocol", ", problem, architecture", "CODE")),
    "evaluator artifact": ("evaluator", EVALUATOR, body("artifact", ", student", "CODE")),
    "method settings": ("method", METHOD, body("settings", "", "CODE")),
    "method notes": ("method", METHOD, body("notes", "", "CODE")),
    "method needs": ("method", METHOD, body("needs", ", iteration, architecture", "CODE")),
    "method constructor": ("method", METHOD, body("__init__", ", *given", "CODE")),
    "architecture network": ("architecture", ARCHITECTURE, body("network", ", shape, classes", "CODE")),
    "dataset load": ("dataset", DATASET, body("load", ", root", "CODE")),
    "dataset traits": ("dataset", DATASET, body("traits", "", "CODE", "@property")),
}


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "Odd: its message cannot be made"])
@pytest.mark.parametrize("call", ASKED)
def test_what_a_call_before_the_work_raises_is_one_line(distribution, data, tmp_path, call, raised):
    kind, source, override = ASKED[call]
    installed(distribution, kind, source + override.replace("CODE", RAISED[raised]))
    result = run(data, tmp_path / "store", **{kind: "mine"})
    assert_one_line(result, f"{kind} mine of bad", raised)
    assert not records(tmp_path / "store")


@pytest.mark.parametrize("raised", RAISED)
def test_a_pool_that_raises_is_one_line_whatever_it_raises(distribution, data, tmp_path, raised):
    installed(distribution, "pool", POOL + body("distribution", ", iteration", RAISED[raised]))
    for words in ([], ["--dry-run"]):
        result = run(data, tmp_path / "store", *words, pool="mine")
        assert_one_line(result, "pool mine of bad: distribution() raised", raised)


@pytest.mark.usefixtures("sigint_ignored")
def test_a_pool_that_raises_keyboard_interrupt_is_one_line_in_the_background_too(distribution, data, tmp_path):
    installed(distribution, "pool", POOL + body("distribution", ", iteration", "raise KeyboardInterrupt"))
    result = run(data, tmp_path / "store", pool="mine")
    assert_one_line(result, "pool mine of bad: distribution() raised", "KeyboardInterrupt")


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "SystemExit: 9", "BaseException: x"])
def test_options_that_raise_are_one_line(distribution, data, tmp_path, raised):
    own = OPTIONS.replace("BODY", RAISED[raised])
    installed(distribution, "pool", own + POOL + "\n    Options = Own\n")
    assert_one_line(run(data, tmp_path / "store", pool="mine"), "pool 'mine' of bad: its options raised", raised)


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "BaseException: x"])
def test_a_class_whose_module_raises_is_one_line(distribution, data, tmp_path, raised):
    site = distribution("bad", registering("pool", "mine", "bad_pools:Mine"))
    (site / "bad_pools.py").write_text(RAISED[raised].replace("        ", ""))
    assert_one_line(run(data, tmp_path / "store", pool="mine"), "pool 'mine' of bad cannot be loaded from", raised)


AT_WORK = {
    "method step": ("method", METHOD, body("step", ", iteration, networks", "CODE")),
    "method distilled": ("method", METHOD, body("distilled", "", "CODE")),
    "method state": ("method", METHOD, body("state", "", "CODE")),
    "method learned": ("method", METHOD, body("learned", "", "CODE")),
    "evaluator evaluate": (
        "evaluator", EVALUATOR,
        body("evaluate", ", distilled, problem, architecture, students, artifacts, streams", "CODE"),
    ),
    "evaluator generator": (
        "evaluator", EVALUATOR,
        body("evaluate", ", distilled, problem, architecture, students, artifacts, streams", "CODE\n        yield 1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "ZeroDivisionError"])
@pytest.mark.parametrize("call", AT_WORK)
def test_what_a_call_at_work_raises_fails_its_cells_and_no_other(distribution, data, tmp_path, call, raised):
    kind, source, override = AT_WORK[call]
    installed(distribution, kind, source + override.replace("CODE", RAISED[raised]))
    result = run(data, tmp_path / "store", "--json", f"--{kind}", SMALL[kind], **{kind: "mine"})
    assert result.exit_code == 1, result.output
    assert [row["status"] for row in json.loads(result.stdout)["rows"]] == ["failed", "done"]
    assert reasons(tmp_path / "store")
    for reason in reasons(tmp_path / "store"):
        assert raised in reason
        assert f"{kind} mine of bad" in reason or raised == "ZeroDivisionError", "what is raised stands as it is"


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "ZeroDivisionError"])
def test_an_adaptive_pool_that_raises_at_work_fails_its_set_alone(distribution, data, tmp_path, raised):
    source = POOL + body("observe", ", architecture, scalars", RAISED[raised])
    installed(distribution, "pool", source)
    result = run(data, tmp_path / "store", "--json", "--pool", SMALL["pool"], pool="mine")
    assert [row["status"] for row in json.loads(result.stdout)["rows"]] == ["failed", "done"]
    (reason,) = reasons(tmp_path / "store")
    assert reason.startswith(f"pool mine of bad: observe() raised {raised}")


def test_an_interrupt_without_a_signal_says_that_the_plugin_did_it(distribution, data, tmp_path):
    installed(distribution, "method", METHOD + body("step", ", iteration, networks", "raise KeyboardInterrupt"))
    result = run(data, tmp_path / "store", method="mine")
    assert result.exit_code == 1
    (reason,) = reasons(tmp_path / "store")
    expected = "method mine of bad: step() raised KeyboardInterrupt, and no signal came: the plugin did it itself"
    assert reason == expected


def test_errors_of_a_guard_within_a_guard_name_the_inner_call():
    expected = pytest.raises(PluginFault, match=r"^the inner raised ValueError: no$")
    with expected, guarded("the outer raised"), guarded("the inner raised"):
        raise ValueError("no")


def test_a_guarded_component_goes_to_another_process_as_what_it_is(distribution):
    installed(distribution, "pool", POOL)
    pool = plugins().registry.resolve("pool", "mine").make()
    again = pickle.loads(pickle.dumps(pool))
    assert type(again).__mro__[1].__name__ == "Pool"
    assert again.distribution(0) == pool.distribution(0)


def test_threads_that_redirect_stdout_in_turn_leave_it_as_it_was(capsys):
    first, second = stdout_to_stderr(), stdout_to_stderr()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    print("within")
    second.__exit__(None, None, None)
    print("after")
    assert capsys.readouterr() == ("after\n", "within\n")


def test_what_is_written_to_the_descriptor_goes_to_stderr_too(capfd):
    with stdout_to_stderr():
        os.write(1, b"raw\n")
    os.write(1, b"later\n")
    assert capfd.readouterr() == ("later\n", "raw\n")


# --- what is returned ---

RECORD = "StudentRecord(student, 0.5, 0.5, 1, 0.0, 0, False)"
WRONG_RECORDS = {
    "accuracy is nan": "accuracy=float('nan')",
    "accuracy is inf": "accuracy=float('inf')",
    "accuracy is -0.5": "accuracy=-0.5",
    "accuracy is 7": "accuracy=7",
    "accuracy is '0.9'": "accuracy='0.9'",
    "accuracy is True": "accuracy=True",
    "accuracy is None": "accuracy=None",
    "accuracy is [0.5]": "accuracy=[0.5]",
    "loss is nan": "loss=float('nan')",
    "loss is 'low'": "loss='low'",
    "losses": "losses=('a',)",
    "losses returned int": "losses=3",
    "epochs is 1.5": "epochs=1.5",
    "epochs is -1": "epochs=-1",
    "seconds is -1": "seconds=-1.0",
    "peak_memory is '1 GB'": "peak_memory='1 GB'",
    "collapsed is 1": "collapsed=1",
    "abreast is 0": "abreast=0",
    "its index is True": "student=True",
    "its index is '0'": "student='0'",
}


@pytest.mark.parametrize("fault", WRONG_RECORDS)
def test_a_record_with_a_wrong_value_is_a_failed_cell(distribution, data, tmp_path, fault):
    wrong = EVALUATOR.replace(RECORD, f"replace({RECORD}, {WRONG_RECORDS[fault]})")
    installed(distribution, "evaluator", "from dataclasses import replace\n" + wrong)
    result = run(data, tmp_path / "store", "--json", "-e", SOUND_EVALUATOR, evaluator="mine")
    assert result.exit_code == 1, result.output
    assert [row["status"] for row in json.loads(result.stdout)["rows"]] == ["failed", "done"]
    assert {record["kind"] for record in records(tmp_path / "store").values()} == {"distilled", "student"}
    assert len(records(tmp_path / "store")) == 3, "no record of a wrong value is kept"
    for reason in reasons(tmp_path / "store"):
        assert reason.startswith("evaluator mine of bad: evaluate(): student ")
        assert fault in reason


@pytest.mark.parametrize(
    "value", ["numpy.float32(0.5)", "numpy.float64(0.5)", "torch.tensor(0.5)", "1", "0", "fractions.Fraction(1, 2)"]
)
def test_numbers_of_other_libraries_are_numbers(distribution, data, tmp_path, value):
    source = EVALUATOR.replace(RECORD, RECORD.replace("0.5", value, 1))
    installed(distribution, "evaluator", "import fractions, numpy, torch\n" + source)
    result = run(data, tmp_path / "store", evaluator="mine")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("loop", "failed", "fault"),
    [
        ("[*students, students[-1]]", 1, "gave more than the students [0, 1]"),
        ("[*students, 99]", 1, "gave more than the students [0, 1]"),
        ("[0, 0]", 1, "gave student 0 out of turn: it was asked for 1"),
        ("students[::-1]", 1, "gave student 1 out of turn: it was asked for 0"),
        ("[]", 2, "did not give the students"),
    ],
)
def test_every_student_comes_once_and_in_turn(distribution, data, tmp_path, loop, failed, fault):
    installed(distribution, "evaluator", EVALUATOR.replace("in students:", f"in {loop}:"))
    result = run(data, tmp_path / "store", evaluator="mine")
    assert result.exit_code == 1, result.output
    raised = reasons(tmp_path / "store")
    assert len(raised) == failed
    assert all(fault in reason for reason in raised)
    students = [record for record in records(tmp_path / "store").values() if record["kind"] == "student"]
    assert len(students) == 2 - failed, "what is failed is not in the store as well"


WRONG_SETS = {
    "its images are (1, 5, 16), but those of ": "images=whole.images[:, :, :5]",
    "images of torch.float64": "images=whole.images.double()",
    "labels of torch.int32": "labels=whole.labels.int()",
    "its classes are not those of ": "classes=('x', 'y', 'z')",
    "6 images, but 1 for each of 3 classes": "images=whole.images.repeat(2, 1, 1, 1), labels=whole.labels.repeat(2)",
    "the step size is nan, which is not a learning rate": "step_size=float('nan')",
    "the step size is 0, which is not a learning rate": "step_size=0.0",
    "the step size is -1, which is not a learning rate": "step_size=-1",
    "the step size is a bool, which is not a learning rate": "step_size=True",
    "the step size is a str, which is not a learning rate": "step_size='small'",
}
DISTILLED = "\n    def distilled(self):\n        whole = super().distilled()\n        return replace(whole, CHANGES)\n"


@pytest.mark.parametrize("fault", WRONG_SETS)
def test_a_set_that_does_not_belong_to_its_problem_is_a_failed_cell(distribution, data, tmp_path, fault):
    source = METHOD + DISTILLED.replace("CHANGES", WRONG_SETS[fault])
    installed(distribution, "method", "from dataclasses import replace\n" + source)
    result = run(data, tmp_path / "store", method="mine")
    assert result.exit_code == 1, result.output
    assert not records(tmp_path / "store")
    assert [fault in reason or reason for reason in reasons(tmp_path / "store")] == [True]


@pytest.mark.parametrize(
    ("logged", "fault"),
    [
        ("{'loss': 'abc'}", "the scalar 'loss' is 'abc', which is not a number"),
        ("{'loss': 10**400}", "the scalar 'loss' is 1000"),
        ("{'loss': True}", "the scalar 'loss' is True"),
        ("{'loss': None}", "the scalar 'loss' is None"),
        ("{1: 2.0}", "the name of a scalar is 1"),
        ("{'\\x1b[31m': 2.0}", r"the name of a scalar is '\x1b[31m'"),
        ("[1.0]", "step() returned list"),
    ],
)
def test_what_a_step_logs_is_numbers_by_name(distribution, data, tmp_path, logged, fault):
    installed(distribution, "method", METHOD.replace('{"loss": 0.0}', logged))
    result = run(data, tmp_path / "store", method="mine")
    assert result.exit_code == 1, result.output
    (reason,) = reasons(tmp_path / "store")
    assert reason.startswith("method mine of bad: step()")
    assert fault in reason


@pytest.mark.parametrize("logged", ["float('nan')", "float('inf')", "torch.tensor([2.0])"])
def test_a_loss_that_is_lost_is_a_result(distribution, data, tmp_path, logged):
    installed(distribution, "method", "import torch\n" + METHOD.replace("0.0}", f"{logged}}}"))
    assert run(data, tmp_path / "store", method="mine").exit_code == 0


@pytest.mark.parametrize("share", ["True", "'1'", "None", "float('nan')", "1j", "torch.tensor(1.0)"])
def test_probabilities_are_real_numbers(distribution, data, tmp_path, share):
    source = POOL.replace('{"mlp": 0.75, "mlp[width=128]": 0.25}', f'{{"mlp": {share}}}')
    installed(distribution, "pool", "import torch\n" + source)
    assert_one_line(run(data, tmp_path / "store", pool="mine"), "Mine gives 'mlp' the probability ")


@pytest.mark.parametrize(
    ("kind", "source", "fault"),
    [
        ("method", METHOD + body("notes", "", "return 3"), "notes() returned int"),
        ("method", METHOD + body("notes", "", "return ['a\\nb']"), "notes() is "),
        ("method", METHOD + body("settings", "", "return {'x': {1}}"), "settings() is "),
        ("method", METHOD + body("needs", ", iteration, architecture", "return [3]"), "needs() returned int"),
        ("method", METHOD + body("needs", ", iteration, architecture", "return None"), "needs() returned NoneType"),
        ("method", METHOD + "\n    version = 'new'\n", "version = 'new': it must be a whole number"),
        ("evaluator", EVALUATOR.replace('"mine v1"', '"a\\nb"'), "protocol() is 'a\\nb'"),
        ("evaluator", EVALUATOR + body("artifact", ", student", "return 'teacher'"), "artifact() returned str"),
        ("pool", POOL + "\n    main = 3\n", "main is 3"),
        ("dataset", DATASET + body("traits", "", "return None", "@property"), "traits returned NoneType"),
    ],
)
def test_other_answers_before_the_work_are_checked_too(distribution, data, tmp_path, kind, source, fault):
    installed(distribution, kind, source)
    result = run(data, tmp_path / "store", **{kind: "mine"})
    assert_one_line(result, fault)


def test_a_method_whose_work_is_no_number_is_one_line(distribution, data, tmp_path):
    installed(distribution, "method", METHOD + body("work", "", "return 'much'"))
    result = run(data, tmp_path / "store", "--dry-run", method="mine")
    assert_one_line(result, "method mine of bad: work() is 'much', which is not a number")


@pytest.mark.parametrize(
    ("artifact", "fault"),
    [
        ("{'x': 3}", "'x' is 3, which is not a tensor"),
        ("{3: torch.ones(1)}", "the name of a tensor is 3"),
        ("{'x': torch.ones(2, 2).to_sparse()}", "is a tensor that no file holds"),
        ("{'x': torch.ones(2)}, {'loss': 'low'}", "the scalar 'loss' is 'low'"),
    ],
)
def test_artifacts_are_tensors_that_a_file_holds(distribution, data, tmp_path, artifact, fault):
    asks = body("artifact", ", student", "return ArtifactRequest('coin', student)")
    makes = body("make_artifact", ", *given", f"return Artifact({artifact})")
    source = "import torch\nfrom harness import Artifact, ArtifactRequest\n" + EVALUATOR + asks + makes
    installed(distribution, "evaluator", source)
    assert run(data, tmp_path / "store", evaluator="mine").exit_code == 1
    assert all(fault in reason for reason in reasons(tmp_path / "store"))
    assert {record["kind"] for record in records(tmp_path / "store").values()} == {"distilled"}


# --- executors ---

EXECUTOR = """
from harness import Executor, Running

class Stuck(Running):
    where = "nowhere"

    def __init__(self, status):
        self.status = status

    def poll(self):
        return POLL

    def stop(self, at_once=False):
        pass

class Mine(Executor):
    slots = 1
    poll_seconds = 0.0
    started = []

    def start(self, orders, detach=False):
        self.started.extend(order.label for order in orders)
        return [Stuck(order.here() if "random" in order.label else STATUS) for order in orders]
"""


@pytest.mark.parametrize(("status", "fault"), [(130, "was stopped"), (3, "ended with status 3")])
def test_a_job_that_ends_again_and_again_loses_its_cell_and_the_rest_goes_on(
    distribution, data, tmp_path, status, fault
):
    source = EXECUTOR.replace("STATUS", str(status)).replace("POLL", "self.status")
    distribution("bad", registering("executor", "mine", "bad:Mine") + source)
    result = run(data, tmp_path / "store", "-m", "random", "--executor", "mine", "--json")
    assert result.exit_code == 1, result.output
    assert [row["status"] for row in json.loads(result.stdout)["rows"]] == ["failed", "done"]
    (reason,) = reasons(tmp_path / "store")
    assert reason.startswith(f"its process {fault} 4 times in a row before it had made anything new: see ")
    import bad

    assert len(bad.Mine.started) == 4 + 1


@pytest.mark.parametrize(
    ("poll", "start", "fault"),
    [
        ("1 / 0", "return [Stuck(0)]", "executor mine of bad: poll() raised ZeroDivisionError"),
        ("'ended'", "return [Stuck(0)]", "executor mine of bad: poll() is 'ended'"),
        ("0", "return []", "executor mine of bad: start() returned 0 of what it promises 1 of"),
        ("0", "return [3]", "executor mine of bad: start() returned int"),
        ("0", "raise KeyboardInterrupt", "executor mine of bad: start() raised KeyboardInterrupt"),
    ],
)
def test_an_executor_that_misbehaves_is_one_line(distribution, data, tmp_path, poll, start, fault):
    source = EXECUTOR.replace("POLL", poll).replace(
        "return [Stuck(order.here()", start + "\n        [Stuck(order.here()"
    )
    distribution("bad", registering("executor", "mine", "bad:Mine") + source.replace("STATUS", "0"))
    result = run(data, tmp_path / "store", "--executor", "mine")
    assert result.exit_code == 2, result.output
    assert f"ddbench: error: {fault}" in result.stderr
    assert "Traceback" not in result.stderr


# --- the rest of a process ---


def test_a_good_architecture_of_a_plugin_is_guarded_and_works(distribution, data, tmp_path):
    installed(distribution, "architecture", GOOD_ARCHITECTURE)
    assert run(data, tmp_path / "store", architecture="mine").exit_code == 0


@pytest.mark.parametrize("suffix", ["'/../x'", "3", "''", "'txt'"])
def test_the_name_of_a_reports_file_stays_in_its_folder(distribution, data, tmp_path, suffix):
    source = (
        "\nfrom harness import Report\n\nclass Mine(Report):\n    suffix = SUFFIX\n\n    def render(self, results):\n"
    )
    distribution(
        "bad", registering("report", "mine", "bad:Mine") + source.replace("SUFFIX", suffix) + "        return 'x'\n"
    )
    with contextlib.chdir(tmp_path):
        result = ddbench("report", tmp_path, "--report", "mine")
    assert_one_line(result, "report mine of bad: suffix is ")
