"""Errors that a user or a plugin author can correct, and helpers for their messages."""

import difflib
import re
from collections.abc import Iterable, Sequence

LONGEST_MESSAGE = 1200
"""Longest message on the command line, in characters: well within a screen of 80 columns and 24 lines."""
LONGEST_WORD = 100
"""Longest word that stays whole in a message that is too long, in characters."""


class DDBenchError(Exception):
    """An error that the user can correct; the message is one line that names the thing and the remedy."""


class UsageError(DDBenchError):
    """An invalid name, option or value."""


class DataError(DDBenchError):
    """Images, labels or files that cannot be used as they are."""


class StoreError(DDBenchError):
    """A store that cannot be read or written."""


class PluginError(DDBenchError):
    """A plugin that cannot be loaded or that breaks its contract."""


_LONGEST = 500
"""Longest message of foreign code, in characters: a line must not fill the screen."""


def error_line(error: BaseException) -> str:
    """Describe any exception in one line: its class, and the first line of its message."""
    name = type(error).__name__
    try:
        message = str(error)
    except BaseException as failure:  # a message is made by the code that went wrong
        message = f"its message cannot be made: {type(failure).__name__}"
    line = (f"{name}: {message}".splitlines() or [name])[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the known words nearest to ``word``, as a phrase to append to an error message."""
    names = sorted(set(known))
    near = [] if len(word) > LONGEST_WORD else difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    return "there is " + ", ".join(names) if names else "there is none"


def few(texts: Sequence[str], separator: str = ", ", most: int = 3) -> str:
    """Join the first texts to one phrase that says how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


def shortened(message: str) -> str:
    """Shorten a message to fit on a screen: first long words lose their middles, then the message does."""
    if len(message) > LONGEST_MESSAGE:
        message = re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: _without_middle(word.group(), LONGEST_WORD), message)
    return _without_middle(message, LONGEST_MESSAGE)


def _without_middle(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = longest // 3  # the remedy usually stands at the end, the thing at the beginning
    return f"{text[: longest - end - 5]} ... {text[-end:]}"
