"""The errors that a user or a plugin author can mend."""

import difflib
import re
from collections.abc import Iterable, Sequence

LONGEST_MESSAGE = 1200
"""Characters of a message on the command line: well within a screen of 80 columns and 24 lines."""
LONGEST_WORD = 100
"""Characters of a word that stays whole in a message that is too long."""


class DDBenchError(Exception):
    """Something that the user can mend. The message is one line: it names the thing and the remedy."""


class UsageError(DDBenchError):
    """A name, an option or a value that cannot be meant."""


class DataError(DDBenchError):
    """Images, labels or files that cannot be used as they are."""


class StoreError(DDBenchError):
    """A store that cannot be read or written."""


class PluginError(DDBenchError):
    """A plugin that cannot be loaded, or that breaks its contract."""


_LONGEST = 500
"""Characters of a message that somebody else's code wrote: no line is longer than a screen."""


def error_line(error: BaseException) -> str:
    """One line for any exception: its class, and the first line of its message."""
    name = type(error).__name__
    try:
        message = str(error)
    except BaseException as failure:  # a message is made by the code that went wrong
        message = f"its message cannot be made: {type(failure).__name__}"
    line = (f"{name}: {message}".splitlines() or [name])[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Say which known words come nearest to ``word``: a phrase to append to an error message."""
    names = sorted(set(known))
    near = [] if len(word) > LONGEST_WORD else difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    return "there is " + ", ".join(names) if names else "there is none"


def few(texts: Sequence[str], separator: str = ", ", most: int = 3) -> str:
    """The first texts in one phrase, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


def shortened(message: str) -> str:
    """A message that fits on a screen: if it is too long, long words lose their middles, and then the message does."""
    if len(message) > LONGEST_MESSAGE:
        message = re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: _without_middle(word.group(), LONGEST_WORD), message)
    return _without_middle(message, LONGEST_MESSAGE)


def _without_middle(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = longest // 3  # the remedy usually stands at the end, the thing at the beginning
    return f"{text[: longest - end - 5]} ... {text[-end:]}"
