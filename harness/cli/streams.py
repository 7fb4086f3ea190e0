"""Standard streams that work whatever they are connected to: closed, a full disk, a broken pipe, any encoding.

No finished work is lost because of a stream: an error on stdout ends the command with one line, and output that stderr
does not take, which is mostly progress, is dropped.
"""

import codecs
import contextlib
import io
import os
import sys
from typing import Any, TextIO

import click

from harness.errors import DDBenchError
from harness.report.tables.drawing import substitute

HANDLER = "ddbench.substitute"
_ASCII = "ddbench-ascii"


class CannotWrite(DDBenchError):
    """Stdout cannot be written."""


class Output(io.TextIOWrapper):
    """Stdout, whose errors are either a broken pipe or one line for the user.

    Raises:
        BrokenPipeError: the reader has closed the pipe.
        CannotWrite: stdout cannot be written for another reason, such as a full disk.
    """

    def write(self, text: str) -> int:
        """Write a text."""
        if text == "":  # click probes the stream with it, and a full disk would refuse even that
            return 0
        try:
            return super().write(text)
        except (OSError, ValueError) as error:
            raise self.failure(error) from error

    def flush(self) -> None:
        """Flush the buffer."""
        try:
            super().flush()
        except (OSError, ValueError) as error:
            raise self.failure(error) from error

    def failure(self, error: OSError | ValueError) -> Exception:
        """Return the error to raise for a failed write, and discard all later output."""
        _lead_nowhere(self)
        if isinstance(error, BrokenPipeError):
            return error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).rstrip(".")
        return CannotWrite(f"{reason}: stdout cannot be written; free space there, or redirect the output")


class Progress(io.TextIOWrapper):
    """Stderr, which drops what cannot be written: progress that nobody reads must not end the work."""

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            return super().write(text)
        except (OSError, ValueError):
            _lead_nowhere(self)
            return len(text)

    def flush(self) -> None:
        """Flush the buffer, or drop it."""
        try:
            super().flush()
        except (OSError, ValueError):
            _lead_nowhere(self)


def prepare_streams() -> None:
    """Replace this process's standard streams by ones that never lose finished work.

    A closed one leads to the null device: otherwise the next file that is opened would get its number, and with it the
    output of libraries and child processes.
    """
    # Descriptors 0, 1 and 2 in this order: open() returns the lowest free number.
    for number in range(3):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDWR)
    prepare_handler()
    codecs.register(_find_ascii)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it lives as long as the process
    sys.stdout = _wrapped(Output, sys.stdout, 1)
    sys.stderr = _wrapped(Progress, sys.stderr, 2)


def prepare_handler() -> None:
    """Register the codec error handler `HANDLER`, which replaces characters that an encoding lacks."""
    codecs.register_error(HANDLER, _substitute)


def write_bytes(content: bytes) -> None:
    """Write bytes to stdout.

    Raises:
        BrokenPipeError, CannotWrite: see `Output`.
    """
    try:
        click.echo(content, nl=False)
    except OSError as error:
        raise sys.stdout.failure(error) if isinstance(sys.stdout, Output) else error from None


def _wrapped(kind: type[io.TextIOWrapper], stream: TextIO | None, number: int) -> TextIO:
    if stream is None:  # it was closed
        return kind(open(number, "wb", closefd=False), encoding="utf-8", errors=HANDLER)
    if not isinstance(stream, io.TextIOWrapper):  # replaced by a caller, such as a test runner
        return stream
    with contextlib.suppress(OSError, ValueError):
        os.set_blocking(
            number, True
        )  # a parent may have made it non-blocking, and a long write would then fail half-way
    # Encodings have many aliases; the canonical name is compared.
    encoding = codecs.lookup(stream.encoding).name
    return kind(
        stream.buffer,
        encoding=_ASCII if encoding == "ascii" else encoding,
        errors=HANDLER,
        line_buffering=stream.line_buffering or kind is Progress,
        write_through=stream.write_through,
    )


def _lead_nowhere(stream: io.TextIOWrapper) -> None:
    """Redirect what is still buffered, and all later output, to the null device."""
    with contextlib.suppress(OSError, ValueError):  # in tests a stream has no file descriptor
        # The interpreter flushes stdout at exit once more, and would print an error then.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _substitute(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace characters that the encoding lacks; undecodable bytes of a file's name are written unchanged."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    # Surrogates stand for bytes that are not UTF-8; only encodings with one byte for an ASCII letter can hold them.
    if all("\udc80" <= sign <= "\udcff" for sign in signs) and len("a".encode(error.encoding)) == 1:
        return signs.encode("utf-8", "surrogateescape"), error.end
    return "".join(map(substitute, signs)), error.end


def _find_ascii(name: str) -> codecs.CodecInfo | None:
    """Find ASCII under another name, because click takes a stream in ASCII for a mistake and writes UTF-8 to it."""
    if name.replace("_", "-") != _ASCII:
        return None
    info: Any = codecs.lookup("ascii")
    return codecs.CodecInfo(
        info.encode, info.decode, info.streamreader, info.streamwriter, info.incrementalencoder,
        info.incrementaldecoder, name=_ASCII,
    )  # fmt: skip
