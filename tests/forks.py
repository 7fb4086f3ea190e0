"""Commands in processes of their own that import torch only once.

They are forked from the server that the contract kit forks its checks from (`harness.testing.fresh`), as jobs of the
local executor are from its launcher. Each has its environment, working folder, import path and output, as
``python -m harness`` would have it, but starts in a tenth of the time. Tests of how ``ddbench`` itself starts, of its
streams and of signals start it for real.
"""

import functools
import importlib
import json
import os
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from harness.testing.fresh import fork_server


def ddbench(*words, env=None, cwd=None, timeout=600):
    """Run the command line, and return its exit status, stdout and stderr."""
    context = fork_server()
    words, env, folder = [str(word) for word in words], dict(os.environ if env is None else env), cwd or os.getcwd()
    paths = [*filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *own_import_path()]
    ours, theirs = zip(context.Pipe(duplex=False), context.Pipe(duplex=False), strict=True)
    process = context.Process(target=become, args=(words, env, str(folder), paths, theirs))
    process.start()
    for end in theirs:
        end.close()
    with ThreadPoolExecutor() as pool:
        printed = pool.map(read_all, ours)
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(words, timeout)
        return subprocess.CompletedProcess(words, process.exitcode, *printed)


def read_all(pipe):
    """What comes through a pipe until all who could write have closed it."""
    with pipe, open(pipe.fileno(), encoding="utf-8", closefd=False) as stream:
        return stream.read()


@functools.cache
def own_import_path():
    """Where an interpreter of this environment looks for modules if nothing is said."""
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", "import json, sys; print(json.dumps(sys.path))"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=bare).stdout)


def become(words, env, folder, paths, pipes):
    """Let this process be ``python -m harness WORDS...`` in an environment and a folder."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    for number, pipe in enumerate(pipes, 1):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.path[:] = [folder, *paths]
    importlib.invalidate_caches()
    sys.argv = ["ddbench", *words]
    runpy.run_module("harness", run_name="__main__", alter_sys=True)
