"""The author's guide, followed to the letter in an environment of its own."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

GUIDE = Path(__file__).parent.parent / "mpdd_plugins" / "README.md"
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
pytestmark = pytest.mark.slow  # the guide's commands take a minute, each in a process that imports torch


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment that sees this one's packages, in which plugins can be installed without an index."""
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, with_pip=False, symlinks=True)
    here, python = sysconfig.get_path("purelib"), root / "bin" / "python"
    (site,) = root.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    for name, command in {
        "ddbench": "-P -m harness",
        "pip": "-m pip --disable-pip-version-check",
    }.items():
        script = root / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{python}" {command} "$@"\n')
        script.chmod(0o755)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DDBENCH_", "PIP_"))}
    path = os.pathsep.join([str(root / "bin"), os.environ["PATH"]])
    pip = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    # Workers would only cost their start: the numbers are the same.
    return {**inherited, **pip, "PATH": path, "PYTHONPATH": os.getcwd(), "DDBENCH_EXECUTOR": "inline"}


@pytest.fixture(scope="module")
def followed(environment, tmp_path_factory):
    """What each command block printed, in order, and the folder in which they ran."""
    folder, printed = tmp_path_factory.mktemp("guide"), []
    for language, text in BLOCKS:
        if language == "python":
            path = folder / text.splitlines()[0].removeprefix("# ")
            assert path.exists(), "the guide replaces a file of the skeleton"
            path.write_text(text)
            continue
        shell = ["bash", "-euc", text]
        done = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return printed, folder


def test_every_block_is_followed(followed):
    printed, _ = followed
    assert len(printed) == sum(language == "sh" for language, _ in BLOCKS) == 3
    assert sys.executable not in "".join(printed), "it ran in the environment of its own"


def test_the_skeleton_keeps_the_contract_at_once(followed):
    first = followed[0][0]
    shown = re.search(r"```text\n(pool growing.*?)```", GUIDE.read_text(), re.DOTALL).group(1)
    for line in shown.splitlines():
        assert line.strip() == "..." or line in first.splitlines()


def test_the_pool_is_measured_beside_another(followed):
    second = followed[0][1]
    assert "growing" in second
    assert "3 distillations" in second
    assert re.search(r"drawn by growing.*: .*convnet\[.*width=32.*\] \d+", second)
    table = [line for line in second.splitlines() if line.startswith("│")]
    assert [line.split()[1] for line in table] == ["single[main=convnet[width=32]]", "growing"]
    *_, compared = second.partition("\nstudent ")
    students = [line.split()[0] for line in compared.partition("\naccuracy on")[0].splitlines()[2:] if line.strip()]
    assert students == ["lenet", "mlp", "all"]
    assert re.search(r"^growing against single: \w", compared, re.MULTILINE)
    assert (followed[1] / "ddbench-page.html").stat().st_size > 10_000


def test_its_own_test_passes(followed):
    assert re.search(r"\d+ passed", followed[0][2])
