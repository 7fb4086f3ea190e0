"""Terminals that are none: text that a stream which says to be a terminal was given."""

import contextlib
import io
import re
import sys

import pytest

from harness.cli.group import cli


class Terminal(io.StringIO):
    """Says to be a terminal; its width is what COLUMNS says."""

    def __init__(self, encoding="utf-8"):
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self):
        return self._encoding

    def isatty(self):
        return True


def without_colours(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def at_width(columns, write, encoding="utf-8"):
    """What ``write`` writes to a terminal of this width, without colours."""
    terminal = Terminal(encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        write(terminal)
    return without_colours(terminal.getvalue())


def on_a_terminal(columns, *words):
    """What ``ddbench`` prints on a terminal of this width."""

    def write(terminal):
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit):
            patch.setattr(sys, "stdout", terminal)
            cli.main([str(word) for word in words], prog_name="ddbench", standalone_mode=False)

    return at_width(columns, write)
