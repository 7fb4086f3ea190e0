"""The executor slurm: what is asked of SLURM, and real processes of submitit's local cluster."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
from executors.orders import KEEPS, PATIENCE, SLEEP, end_of, order, wait_until
from hypothesis import given
from hypothesis import strategies as st
from studies import ddbench

from harness import Order, UsageError
from harness.cli.checkup import plugin_health
from harness.executors import slurm_queue as queue
from harness.executors import slurm_task as task
from harness.executors.slurm import LOST, Slurm, minutes_of
from harness.planning.request import read_config, request_from
from harness.plugins.discovery import plugins
from harness.testing import ExecutorContract


def slurm(options="slurm"):
    return plugins().registry.resolve("executor", options).make()


# --- times ---


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("10:30", 11), ("1:30:00", 90), ("0:0:1", 1), ("1-0", 1440), ("0-1:30", 90), ("2-00:00:00", 2880)],
)
def test_times_are_read_as_slurm_reads_them(text, minutes):
    assert minutes_of(text) == minutes


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_whole_times(days, hours, minutes, seconds):
    assert minutes_of(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == 1440 * days + 60 * hours + minutes + 1


@pytest.mark.parametrize("text", ["0", "0:00", "4:00", "an hour", "1:2:3:4", "-5", "1-", "-", "2h", "1.5", "1--2"])
def test_what_is_no_time_is_said_to_be_none(text):
    with pytest.raises(UsageError, match=r"slurm\[time=.*should be"):
        slurm(f"slurm[time={text}]")


# --- what is asked of SLURM ---


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Programs that do what SLURM's do, as far as it is looked at here: files record what they were asked, and what
    ``squeue`` lists."""
    programs, asked = tmp_path / "bin", tmp_path / "asked"
    programs.mkdir()
    texts = {
        "srun": "exit 0",
        "sbatch": 'echo "sbatch $@" >> asked; cp "$1" script; echo "Submitted batch job 17"',
        "scancel": 'echo "scancel $@" >> asked',
        "scontrol": 'echo "scontrol $@" >> asked',
        "squeue": "cat queue",
    }
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/sh\ncd {tmp_path} && {{ {text}\n}}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(queue, "SECONDS", 0.0)
    (tmp_path / "queue").write_text("")
    asked.touch()
    return tmp_path


def flags(folder):
    lines = (folder / "script").read_text().splitlines()
    return dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH"))


def test_orders_are_one_array_with_a_limit(cluster):
    options = "partition=gpu,time=2-00:00:00,memory=24,cpus=4,slots=3,account=lab,qos=low,constraint=a100"
    (cluster / "modules.sh").touch()
    executor = slurm(f"slurm[{options},setup={cluster / 'modules.sh'}]")
    assert executor.slots == 3
    started = executor.start([order(cluster, SLEEP, name, gpu=True) for name in "abcde"])
    assert [job.where for job in started] == [f"SLURM job 17_{task}" for task in range(5)]
    assert (cluster / "asked").read_text().count("sbatch") == 1
    asked = flags(cluster)
    wanted = {
        "array": "0-4%3",
        "partition": "gpu",
        "time": "2880",
        "mem": "24GB",
        "cpus-per-task": "4",
        "gpus-per-node": "1",
        "account": "lab",
        "qos": "low",
        "constraint": "a100",
        "signal": "USR2@120",
    }
    assert wanted.items() <= asked.items()
    assert f". {cluster / 'modules.sh'}" in (cluster / "script").read_text().splitlines()
    assert asked["output"].startswith(str(cluster / "submitit"))


def test_what_is_not_asked_for_is_left_to_the_cluster(cluster):
    slurm().start([order(cluster, SLEEP)])
    assert not flags(cluster).keys() & {"array", "partition", "mem", "gpus-per-node", "account", "qos", "constraint"}


def test_orders_with_and_without_a_gpu_are_two_arrays_in_the_order_given(cluster):
    orders = [order(cluster, SLEEP, name, gpu=name in "bd") for name in "abcd"]
    started = slurm().start(orders)
    assert (cluster / "asked").read_text().count("sbatch") == 2
    assert [job.where.partition("_")[2] for job in started] == ["0", "0", "1", "1"]
    slurm("slurm[gpus=2]").start(orders[:1])
    assert flags(cluster)["gpus-per-node"] == "2"


# --- any option of sbatch ---

TABLE = """
method = "dm"
[executor]
name = "slurm"
time = "8:00:00"
slots = 4
[executor.sbatch]
gres = "gpu:a100:2"
nodelist = "node[01-04,07],big2"
mail-type = "END,FAIL"
comment = 'it says "now, or never"'
exclusive = true
requeue = false
"""
TYPED = (
    'slurm[time=8:00:00,slots=4,sbatch.gres=gpu:a100:2,sbatch.nodelist="node[01-04,07],big2",'
    'sbatch.mail-type="END,FAIL",sbatch.comment=it says "now, or never",sbatch.exclusive=true,sbatch.requeue=false]'
)


def test_a_table_needs_no_quotes_and_brackets_say_the_same(tmp_path, cluster):
    (tmp_path / "table.toml").write_text(TABLE)
    request = request_from(read_config(tmp_path / "table.toml"))
    assert request.executor == TYPED
    slurm(TYPED).start([order(cluster, SLEEP, gpu=True)])
    lines = (cluster / "script").read_text().splitlines()
    asked = flags(cluster)
    wanted = {"gres": "gpu:a100:2", "nodelist": "'node[01-04,07],big2'", "mail-type": "END,FAIL"}
    assert wanted.items() <= asked.items()
    assert "#SBATCH --exclusive" in lines
    assert shlex.split(next(line for line in lines if "comment" in line))[1] == '--comment=it says "now, or never"'
    assert not asked.keys() & {"gpus-per-node", "requeue"}, "gres asks for the GPUs, and what is false is left out"
    resolved = plugins().registry.resolve("executor", TYPED)
    assert plugins().registry.resolve("executor", str(resolved)).options == resolved.options


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("sbatch.mem=4G", r"slurm\[sbatch=...\]: mem is set by ddbench: write slurm\[memory=...\]"),
        ("sbatch.array=1-9", "array is set by ddbench: it follows its jobs by it, so leave it out"),
        ("sbatch.--gres=gpu", "'--gres' is no long option of sbatch"),
        ('sbatch.comment="a\nb"', "comment has a character that cannot be printed"),
        ("sbatch=gres", r"its entries have names: write sbatch.NAME=VALUE"),
        ("sbach.gres=gpu", "'slurm' has no option 'sbach.gres'"),
        ("time.gres=gpu", "'slurm' has no option 'time.gres'"),
    ],
)
def test_options_of_sbatch_that_cannot_be_set_are_refused(options, complaint):
    with pytest.raises(UsageError, match=complaint):
        slurm(f"slurm[{options}]")


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"time": "90"}, 'the table executor has no name: write name = "slurm" into it'),
        ({"name": "slurm", "sbatch": {"nodelist": ["a", "b"]}}, r"executor.sbatch.nodelist = \['a', 'b'\] is neither"),
        ({"name": "slurm", "qos": ""}, "executor.qos is empty: leave it out"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(table, complaint):
    with pytest.raises(UsageError, match=complaint):
        request_from({"executor": table})


@pytest.mark.parametrize("name", ["17", "17_0"])
def test_a_job_that_is_no_more_is_lost(cluster, name):
    (job, *_) = slurm().start([order(cluster, SLEEP, f"{number}") for number in range(1 + ("_" in name))])
    (cluster / "queue").write_text(f"16\n{name}\n170\n")
    assert [job.poll() for _ in range(4)] == [None] * 4
    (cluster / "queue").write_text("170\n")
    assert job.poll() is None, "its result may be slow to be seen"
    assert job.poll() == LOST


def test_the_queue_is_looked_into_now_and_then(cluster, monkeypatch):
    monkeypatch.setattr(queue, "SECONDS", 3600.0)
    (job,) = slurm().start([order(cluster, SLEEP)])
    assert [job.poll() for _ in range(4)] == [None] * 4


def test_where_the_queue_cannot_be_seen_nothing_is_lost(cluster):
    (cluster / "bin" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    (job,) = slurm().start([order(cluster, SLEEP)])
    assert [job.poll() for _ in range(4)] == [None] * 4


def test_jobs_of_a_run_are_counted_by_their_name(cluster):
    slurm().start([order(cluster, SLEEP)])
    assert flags(cluster)["job-name"] == f"ddbench-{cluster.name}"
    (cluster / "bin" / "squeue").write_text(f'#!/bin/sh\necho "squeue $@" >> {cluster}/asked; echo 17; echo 18\n')
    assert Slurm.ordered(cluster) == 2
    asked = (cluster / "asked").read_text().splitlines()[-1].split()
    assert {f"--name=ddbench-{cluster.name}", "--array"} <= set(asked)
    (cluster / "bin" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert Slurm.ordered(cluster) is None


def test_a_job_is_asked_to_stop_or_cancelled(cluster):
    def stopped(squeue, at_once=False):
        """The calls of ``scancel`` if ``squeue`` lists that for jobs that wait."""
        (cluster / "bin" / "squeue").write_text(f"#!/bin/sh\ncase $* in *PENDING*) {squeue} ;; *) echo 17 ;; esac\n")
        before = (cluster / "asked").read_text()
        job.stop(at_once)
        return (cluster / "asked").read_text().removeprefix(before).splitlines()

    (job,) = slurm().start([order(cluster, SLEEP)])
    assert stopped("echo 17") == ["scancel --quiet 17"]
    for unknown in ("echo 17_1", "exit 1"):
        assert stopped(unknown) == ["scancel --quiet --signal=USR1 17"]
        assert stopped(unknown, at_once=True) == ["scancel --quiet --signal=USR1 17", "scancel --quiet 17"]


def test_the_signal_is_one_that_submitit_leaves(monkeypatch):
    import submitit

    assert task.stop_signal() == signal.SIGUSR1
    monkeypatch.setattr(submitit.JobEnvironment, "USR_SIG", "USR1")
    assert task.stop_signal() == signal.SIGUSR2


# --- what cannot be ---


def test_where_sbatch_refuses_it_is_one_line(cluster):
    (cluster / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: gpu' >&2\nexit 1\n")
    with pytest.raises(UsageError, match=r"^SLURM takes no job: .*invalid partition: gpu; see `ddbench executors"):
        slurm().start([order(cluster, SLEEP)])


def test_where_there_is_no_slurm_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"there is no SLURM here \(no srun\): .* slurm\[cluster=local\]"):
        slurm().start([order(tmp_path, SLEEP)])


@pytest.mark.parametrize("words", [("--dry-run",), ()])
def test_without_the_extra_it_is_one_line_before_anything_starts(tmp_path, monkeypatch, words):
    monkeypatch.setitem(sys.modules, "submitit", None)
    result = ddbench("run", "-m", "dm", "--executor", "slurm[time=90]", "--store", tmp_path / "store", *words)
    remedy = "which is not installed: pip install 'ddbench[slurm]'"
    assert result.stderr.splitlines()[-1] == (
        f"ddbench: error: the executor slurm[time=90] needs the package submitit, {remedy}"
    )
    assert (result.exit_code, (tmp_path / "store").exists()) == (2, False)
    details = json.loads(ddbench("executors", "show", "slurm", "--json").stdout)
    assert details["needs_packages"] == {"submitit": "ddbench[slurm]"}


@pytest.mark.parametrize(("chosen", "status"), [("local", "note"), ("slurm[time=90]", "broken")])
def test_doctor_says_what_an_executor_lacks(monkeypatch, chosen, status):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setenv("DDBENCH_EXECUTOR", chosen)
    (check,) = [check for check in plugin_health() if check.name == "executor slurm"]
    assert (check.status, check.detail.partition(",")[0]) == (status, "it needs the package submitit")


# --- real processes ---


class TestLocalCluster(ExecutorContract):
    name = "slurm[cluster=local]"
    patience = PATIENCE


def test_commands_are_stopped_if_a_script_is_read_first(tmp_path):
    """A shell comes between."""
    (tmp_path / "setup.sh").write_text("export FROM_SETUP=1\n")
    contract = TestLocalCluster()
    contract.name = f"slurm[cluster=local,setup={tmp_path / 'setup.sh'}]"
    contract.test_stops()


@pytest.mark.usefixtures("sigint_ignored")
def test_commands_are_stopped_if_this_process_ignores_sigint():
    contract = TestLocalCluster()
    contract.test_stops()
    contract.test_stops_at_once()


def test_a_command_is_asked_to_stop_if_submitits_process_is_killed(tmp_path):
    (job,) = slurm("slurm[cluster=local]").start([order(tmp_path, KEEPS)])
    wait_until((tmp_path / "job.mark").exists)
    os.kill(int(job.where.removeprefix("pid ")), signal.SIGKILL)
    assert end_of(job) == LOST
    wait_until(lambda: (tmp_path / "job.log").read_text() == "kept\n")


def test_jobs_import_nothing_from_the_working_folder(cluster, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    slurm().start([order(cluster, SLEEP)])
    (line,) = [line for line in (cluster / "script").read_text().splitlines() if "submitit.core._submit" in line]
    assert f"{sys.executable} -P -u -m submitit" in line
    assert "PYTHONSAFEPATH" not in os.environ


GOES_ON = f"""
import pathlib, sys
if pathlib.Path(sys.argv[1]).exists():
    print("goes on", flush=True)
    sys.exit(5)
{KEEPS}"""


@pytest.fixture
def on_the_node(cluster):
    """Start what SLURM starts on the node, for job 17."""
    started = []

    def on_the_node():
        env = {**os.environ, "SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "17"}
        command = [sys.executable, "-m", "submitit.core._submit", str(cluster / "submitit")]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return started[-1]

    yield on_the_node
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_task_that_is_asked_to_stop_asks_its_command(cluster, on_the_node, number):
    (job,) = slurm().start([order(cluster, KEEPS)])
    node = on_the_node()
    wait_until((cluster / "job.mark").exists)
    node.send_signal(number)
    assert node.wait(PATIENCE) == 0
    assert job.poll() == 130
    assert (cluster / "job.log").read_text() == "kept\n"


def test_a_task_that_runs_out_of_time_goes_on_when_slurm_starts_it_again(cluster, on_the_node):
    (job,) = slurm("slurm[cpus=3]").start([order(cluster, GOES_ON)])
    (cluster / "queue").write_text("17\n")
    node = on_the_node()
    wait_until((cluster / "job.mark").exists)
    node.send_signal(signal.SIGUSR2)
    assert node.wait(PATIENCE) != 0
    assert (cluster / "asked").read_text().splitlines()[-1] == "scontrol requeue 17"
    assert job.poll() is None
    assert on_the_node().wait(PATIENCE) == 0
    assert job.poll() == 5
    assert (cluster / "job.log").read_text() == "kept\ngoes on\n"


def test_a_task_whose_command_cannot_be_started_is_lost(cluster, on_the_node):
    known = order(cluster, SLEEP)
    (job,) = slurm().start([Order("job", "the job", ["/no/such/program"], known.log, False, known.here)])
    assert on_the_node().wait(PATIENCE) != 0
    assert job.poll() == LOST
    assert "/no/such/program" in known.log.read_text()
