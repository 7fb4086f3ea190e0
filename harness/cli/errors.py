"""How commands end with an error: one line on stderr and an exit status, without a traceback if the user can fix it.

0 success, 1 something failed, 2 wrong usage or an error that the user can fix, 130 interrupted, 141 broken pipe.
"""

import contextlib
import errno
import os
import re
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
"""Errors of paths that no file can have; they may be raised by the first call of any kind that uses the path."""
_HELP = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What click raises if a command is missing, to print the help; click 8.1 has no such class."""
# Import errors of a torch and a torchvision that were built for different versions; they have no class of their own.
_MISMATCH = ("torchvision::nms does not exist", "Couldn't load custom C++ ops", "torchvision/_C.so")

_NO_MEMORY = ("can't allocate memory", "not enough memory: you tried to allocate")
"""Parts of torch's messages, on Linux and elsewhere, if the system refuses memory."""
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
    """Turn errors that the user can fix, interrupts and closed pipes into exits that click knows.

    Wrong usage is reported in one line too, instead of click's four.
    """
    try:
        yield
    except click.UsageError as error:
        # Printing the help is not an error.
        if isinstance(error, _HELP):
            raise
        path = error.ctx.command_path if error.ctx else "ddbench"
        text = _store_is_an_argument(error) or _store_is_an_option(error) or error.format_message().rstrip(".")
        raise Failure(f"{text} (see `{path} --help`)") from error
    except (click.ClickException, click.exceptions.Exit):
        raise
    except (KeyboardInterrupt, click.Abort) as stop:
        click.echo(f"ddbench: {str(stop) or 'interrupted'}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # The status that a shell reports for a process killed by SIGPIPE: 128 + 13.
        raise click.exceptions.Exit(BROKEN_PIPE) from None
    except Exception as error:
        message = message_for(error)
        if message is None:
            raise
        raise Failure(message) from error


def _store_is_an_argument(error: click.UsageError) -> str | None:
    """Return the way to write it if --store was typed for a command whose stores are arguments; None otherwise."""
    if not isinstance(error, click.NoSuchOption) or error.option_name != "--store" or error.ctx is None:
        return None
    for argument in error.ctx.command.params:
        if isinstance(argument, click.Argument) and argument.name in ("store", "stores"):
            stores = "stores are arguments" if argument.nargs == -1 else "the store is an argument"
            usage = f"{error.ctx.command_path} {argument.make_metavar(error.ctx)}"
            return f"there is no option --store, {stores} here: `{usage}`"
    return None


def _store_is_an_option(error: click.UsageError) -> str | None:
    """Return the way to write it if a store was typed as an argument of a command that has --store; None otherwise."""
    unexpected = re.fullmatch(r"Got unexpected extra argument \((.+)\)", error.format_message())
    if not unexpected or error.ctx is None or all(option.name != "store" for option in error.ctx.command.params):
        return None
    word = unexpected[1]
    return f"{word} is no argument of this command: write --store {word}" if _is_store(word) else None


def _is_store(word: str) -> bool:
    return os.path.isfile(os.path.join(word, "store.json"))


@contextlib.contextmanager
def clean_exit() -> Iterator[None]:
    """Do for the whole process what `one_line_errors` does for a command, and flush stdout."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        sys.exit(BROKEN_PIPE)
    except DDBenchError as error:  # of the last flush: errors of a command have already become exit statuses
        report(error)
        sys.exit(Failure.exit_code)
    # An interrupt between commands, or during the flush.
    except KeyboardInterrupt:
        _end_interrupted()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _end_interrupted()
        raise


def _end_interrupted() -> NoReturn:
    # A normal exit would wait for students that train in other threads. Ending at once is safe: whatever the store
    # holds was written whole.
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def message_for(error: BaseException) -> str | None:
    """Return one line for an error that the user can fix; None for any other error."""
    chain = list(_chain(error))
    if any(_is_mismatch(link) for link in chain):
        return mismatched_pair()
    # Whatever was written when the disk became full, the remedy is the same.
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return f"{error.strerror}: make room for {error.filename or 'what is written'}"
    if any(_is_out_of_memory(link) for link in chain):
        return f"there is not enough memory ({_one_line(error)[:200] or 'MemoryError'}): {_LESS}"
    if isinstance(error, OSError) and error.errno in _NO_SUCH_NAME:
        return _one_line(f"{error.filename}: {error.strerror}: give another path")
    return _one_line(error) if isinstance(error, DDBenchError) else None


def mismatched_pair() -> str:
    """Return what to do about a torch and a torchvision that were not built for each other."""
    return (
        f"torch {version_of('torch')} and torchvision {version_of('torchvision')} do not fit together: reinstall "
        "both from the index (pip install --force-reinstall torch torchvision)"
    )


def version_of(distribution: str) -> str:
    """Return the installed version of a distribution without importing it."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _is_mismatch(error: BaseException) -> bool:
    return isinstance(error, RuntimeError | ImportError) and any(sign in str(error) for sign in _MISMATCH)


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python, NumPy or torch could not get memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # torch reports failed allocations on a CPU as plain runtime errors.
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    # Explicit causes can form a circle.
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _one_line(message: object) -> str:
    return shortened(printable(" ".join(line.strip() for line in str(message).splitlines() if line.strip())))
