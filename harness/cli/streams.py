"""Stdin, stdout and stderr of this process, made fit for whatever they are: closed, full, unread, of any encoding.

No finished work is lost because of a stream. What cannot be written to stdout ends the command with one line; what
cannot be written to stderr, progress mostly, is dropped.
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
    """Stdout takes no more."""


class Output(io.TextIOWrapper):
    """Stdout.

    Raises:
        BrokenPipeError: nobody reads on.
        CannotWrite: it cannot be written for another reason, such as a full disk.
    """

    def write(self, text: str) -> int:
        """Write a text."""
        if text == "":  # by which click asks what kind of stream it is; a full disk refuses even that
            return 0
        try:
            return super().write(text)
        except (OSError, ValueError) as error:
            raise self.failure(error) from error

    def flush(self) -> None:
        """Hand over what was written."""
        try:
            super().flush()
        except (OSError, ValueError) as error:
            raise self.failure(error) from error

    def failure(self, error: OSError | ValueError) -> Exception:
        """What to raise for an error in writing; nothing is written from then on."""
        _lead_nowhere(self)
        if isinstance(error, BrokenPipeError):
            return error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).rstrip(".")
        return CannotWrite(f"{reason}: stdout cannot be written; make room there, or send it to another place")


class Progress(io.TextIOWrapper):
    """Stderr: what it does not take is dropped, for progress that nobody reads must not end the work."""

    def write(self, text: str) -> int:
        """Write a text, if that is possible."""
        try:
            return super().write(text)
        except (OSError, ValueError):
            _lead_nowhere(self)
            return len(text)

    def flush(self) -> None:
        """Hand over what was written, if that is possible."""
        try:
            super().flush()
        except (OSError, ValueError):
            _lead_nowhere(self)


def prepare_streams() -> None:
    """Put streams in place of this process's own that never end finished work.

    A closed one leads to the null device: else the next file that is opened would take its number, and would get what
    libraries and child processes print.
    """
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
    """Make known what is written in place of signs that an encoding does not have, as `HANDLER`."""
    codecs.register_error(HANDLER, _substitute)


def write_bytes(content: bytes) -> None:
    """Write to stdout what is no text, perhaps.

    Raises:
        BrokenPipeError, CannotWrite: as `Output` says.
    """
    try:
        click.echo(content, nl=False)
    except OSError as error:
        raise sys.stdout.failure(error) if isinstance(sys.stdout, Output) else error from None


def _wrapped(kind: type[io.TextIOWrapper], stream: TextIO | None, number: int) -> TextIO:
    if stream is None:  # it was closed
        return kind(open(number, "wb", closefd=False), encoding="utf-8", errors=HANDLER)
    if not isinstance(stream, io.TextIOWrapper):  # somebody else's, which has its own ways
        return stream
    with contextlib.suppress(OSError, ValueError):
        os.set_blocking(number, True)  # whoever had it before may have left it so that a long table does not fit
    encoding = codecs.lookup(stream.encoding).name
    return kind(
        stream.buffer,
        encoding=_ASCII if encoding == "ascii" else encoding,
        errors=HANDLER,
        line_buffering=stream.line_buffering or kind is Progress,
        write_through=stream.write_through,
    )


def _lead_nowhere(stream: io.TextIOWrapper) -> None:
    """Let what is still buffered, and all that follows, go to the null device."""
    with contextlib.suppress(OSError, ValueError):  # in tests a stream has no number
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _substitute(error: UnicodeError) -> tuple[str | bytes, int]:
    """Something in place of signs that the encoding does not have; bytes of a file's name stay what they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    if all("\udc80" <= sign <= "\udcff" for sign in signs) and len("a".encode(error.encoding)) == 1:
        return signs.encode("utf-8", "surrogateescape"), error.end
    return "".join(map(substitute, signs)), error.end


def _find_ascii(name: str) -> codecs.CodecInfo | None:
    """ASCII under another name: click takes a stream in ASCII for a mistake, and writes UTF-8 to it."""
    if name.replace("_", "-") != _ASCII:
        return None
    info: Any = codecs.lookup("ascii")
    return codecs.CodecInfo(
        info.encode, info.decode, info.streamreader, info.streamwriter, info.incrementalencoder,
        info.incrementaldecoder, name=_ASCII,
    )  # fmt: skip
