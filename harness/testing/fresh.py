"""Calling a function in a process that has run nothing of what is checked: whatever a module keeps is not there."""

import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

import torch

from harness.plugins.discovery import plugins
from harness.plugins.registry import Entry, stdout_to_stderr

PRELOADED = ["harness.testing", "torch._dynamo"]
"""Torch imports the second by itself at the first step of an optimiser, which takes seconds."""
P = ParamSpec("P")
T = TypeVar("T")


def in_fresh_process(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What ``function`` gives there, computed with as many threads and the same components as here.

    The process comes from a server that has imported torch and the contract kit but no plugin: after the first time,
    which starts the server, it is there in a moment.

    Raises:
        BrokenProcessPool: it ended without an answer.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    call = pickle.dumps((function, arguments, named))
    with ProcessPoolExecutor(1, context) as pool:
        answer = pool.submit(_called, call, plugins().registry.entries, torch.get_num_threads()).result()
    result: T = pickle.loads(answer)
    return result


def _called(call: bytes, entries: Sequence[Entry], threads: int) -> bytes:
    torch.set_num_threads(threads)
    plugins().registry.entries = list(entries)
    with stdout_to_stderr():
        function, arguments, named = pickle.loads(call)
        return pickle.dumps(function(*arguments, **named))
