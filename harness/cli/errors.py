"""How a command ends that cannot go on: for what users can mend, one line on stderr and an exit status, no traceback.

0 all good, 1 something failed, 2 wrong usage or something that the user can mend, 130 interrupted, 141 nobody reads on.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import IO, Any, NoReturn

import click

from harness.cli.output import printable
from harness.errors import DDBenchError, shortened

INTERRUPTED, BROKEN_PIPE = 130, 141
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ELOOP)
"""Of paths that no file can have, wherever they are first looked at."""
_HELP = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What click raises where a verb is missing, to print the help; 8.1 has another way."""
_MISMATCH = ("torchvision::nms does not exist", "Couldn't load custom C++ ops", "torchvision/_C.so")

_NO_MEMORY = ("can't allocate memory", "not enough memory: you tried to allocate")
"""What torch says, on Linux and elsewhere, if the system refuses memory."""
_LESS = "use smaller or fewer images (size=N for a folder), or a machine with more memory"


class Failure(click.ClickException):
    """An error that ends the command with exit status 2 and one line."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line on stderr."""
        report(self.message)


def report(message: object) -> None:
    """Print an error on stderr, as one line."""
    click.echo(f"ddbench: error: {_one_line(message)}", err=True)


def warn(message: object) -> None:
    """Print a warning on stderr, as one line."""
    click.echo(f"ddbench: warning: {_one_line(message)}", err=True)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors that the user can mend, interrupts and closed pipes into ends of the command that click knows.

    Wrong usage is one line too, in place of click's four.
    """
    try:
        yield
    except click.UsageError as error:
        if isinstance(error, _HELP):
            raise
        path = error.ctx.command_path if error.ctx else "ddbench"
        raise Failure(f"{error.format_message().rstrip('.')} (`{path} --help` tells more)") from error
    except (click.ClickException, click.exceptions.Exit):
        raise
    except (KeyboardInterrupt, click.Abort) as stop:
        click.echo(f"ddbench: {str(stop) or 'interrupted'}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise click.exceptions.Exit(BROKEN_PIPE) from None
    except Exception as error:
        message = message_for(error)
        if message is None:
            raise
        raise Failure(message) from error


@contextlib.contextmanager
def clean_exit() -> Iterator[None]:
    """For the process as a whole: what `one_line_errors` is for a command, and the last flush of stdout.

    An interrupted process ends at once: students that train in other threads would else be waited for, and what is in
    the store is there whole.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        sys.exit(BROKEN_PIPE)
    except DDBenchError as error:  # of the last flush: a command's own have become exit statuses
        report(error)
        sys.exit(Failure.exit_code)
    except KeyboardInterrupt:
        _end_interrupted()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _end_interrupted()
        raise


def _end_interrupted() -> NoReturn:
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def message_for(error: BaseException) -> str | None:
    """One line for an error that the user can mend, None for any other."""
    chain = list(_chain(error))
    if any(_is_mismatch(link) for link in chain):
        return mismatched_pair()
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return f"{error.strerror}: make room for {error.filename or 'what is written'}"
    if any(_is_out_of_memory(link) for link in chain):
        return f"there is not enough memory ({_one_line(error)[:200] or 'MemoryError'}): {_LESS}"
    if isinstance(error, OSError) and error.errno in _NO_SUCH_NAME:
        return _one_line(f"{error.filename}: {error.strerror}: give another path")
    return _one_line(error) if isinstance(error, DDBenchError) else None


def mismatched_pair() -> str:
    """What to do about a torch and a torchvision that were not built for each other."""
    return (
        f"torch {version_of('torch')} and torchvision {version_of('torchvision')} do not belong together: reinstall "
        "both from the index (pip install --force-reinstall torch torchvision)"
    )


def version_of(distribution: str) -> str:
    """The installed version of a distribution, read without importing it."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _is_mismatch(error: BaseException) -> bool:
    return isinstance(error, RuntimeError | ImportError) and any(sign in str(error) for sign in _MISMATCH)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy or torch could not get memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _one_line(message: object) -> str:
    return shortened(printable(" ".join(line.strip() for line in str(message).splitlines() if line.strip())))
