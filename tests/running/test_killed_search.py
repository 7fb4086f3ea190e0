"""`ddbench tune`, killed in the midst of a trial: the same command goes on, and ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from studies import ARCHITECTURE, EVALUATOR, ddbench, numbers

TRIALS, ITERATIONS = 4, 10


def search_words(data, store):
    """The words of a search whose second point ends trials that are below the median."""
    return [
        "tune", "--method", "dm[batch_real=4,lr_img=0.01]", "--over", "dm.lr_img=0.01..100", "--trials", str(TRIALS),
        "--iterations", f"2,{ITERATIONS}", "--dataset", f"arrays[path={data}]",
        "--pool", f"single[main={ARCHITECTURE}]", "--architecture", ARCHITECTURE, "--evaluator", EVALUATOR,
        "--students", "1", "--store", str(store), "--executor", "inline", "--checkpoint-every", "0", "--json",
    ]  # fmt: skip


def kill_within_a_trial(words, after):
    """Start a search as a process, and kill it on the way to the second point of the trial that follows ``after``."""
    command = [sys.executable, "-m", "harness", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as search:
        reached = False
        for line in search.stderr:
            reached = reached or line.startswith(f"trial {after} of {TRIALS}")
            if reached and line.startswith(f"iteration {ITERATIONS // 2} of {ITERATIONS}:"):
                os.kill(search.pid, signal.SIGKILL)
                break
        printed, rest = search.communicate(timeout=300)
    assert search.returncode == -signal.SIGKILL, f"it ended before it was killed: {rest}"
    assert not printed
    assert f"trial {TRIALS} of {TRIALS}" not in rest


def answer_of(words):
    """The trials, the choice and the rows of the final run, and what was said on stderr."""
    ended = ddbench(*words)
    assert ended.exit_code == 0, ended.stderr
    answer = json.loads(ended.stdout)
    return {"trials": answer["trials"], "best": answer["best"], "rows": answer["result"]["rows"]}, ended.stderr


def test_a_search_that_is_killed_within_a_trial_ends_as_one_that_was_not(data, tmp_path):
    whole, _ = answer_of(search_words(data, tmp_path / "whole"))
    words = search_words(data, tmp_path / "killed")
    kill_within_a_trial(words, after=2)
    before = numbers(tmp_path / "killed")
    assert len(before) < len(numbers(tmp_path / "whole"))
    assert list((tmp_path / "killed").glob("partial/*")), "no checkpoint of the trial was left"
    resumed, said = answer_of(words)
    assert resumed == whole
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")
    assert before.items() <= numbers(tmp_path / "killed").items()
    assert "loss" in said, "it had nothing left to do"
