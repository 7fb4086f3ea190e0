"""Redirection of standard output, which belongs to results: what plugins print goes to standard error."""

import contextlib
import ctypes
import fcntl
import functools
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class _State:
    """The state of this process, whose threads share stdout: the first user redirects it, the last restores it."""

    lock = threading.Lock()
    users = 0
    stack = contextlib.ExitStack()


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send everything that is printed within the block, by Python or by C code, to stderr."""
    with _State.lock:
        _State.users += 1
        if _State.users == 1:
            _State.stack.enter_context(_descriptor_redirected())
            _State.stack.enter_context(contextlib.redirect_stdout(sys.stderr))
    try:
        yield
    finally:
        with _State.lock:
            _State.users -= 1
            if _State.users == 0:
                _State.stack.close()


@contextmanager
def _descriptor_redirected() -> Iterator[None]:
    """Redirect descriptor 1 too, which C code and `os.write` use, unless stdout is closed or something else."""
    stdout = sys.__stdout__
    try:
        if stdout is None or stdout.fileno() != 1:
            raise OSError
        # Close-on-exec: a child would otherwise inherit the real stdout and could hold a pipe open that a reader waits
        # for.
        real = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)  # never 2, even if stderr was closed
    except (OSError, ValueError):
        yield
        return
    try:
        _flush(stdout)
        try:
            os.dup2(2, 1)
        except OSError:  # there is no stderr either
            _drop(1)
        yield
    finally:
        _flush(stdout)
        os.dup2(real, 1)
        os.close(real)


def _drop(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _flush(stdout: object) -> None:
    """Flush what Python and the C library still buffer for descriptor 1, while it is what it was written for."""
    with suppress(OSError, ValueError):
        stdout.flush()  # type: ignore[attr-defined]
    with suppress(OSError, ValueError, AttributeError):
        library, stream = _c_stdout()
        library.fflush(stream)


@functools.cache
def _c_stdout() -> tuple[ctypes.CDLL, ctypes.c_void_p]:
    """Return the C library and its stream stdout."""
    library = ctypes.CDLL(None)
    return library, ctypes.c_void_p.in_dll(library, "stdout")
