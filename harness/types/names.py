"""Names with options in brackets, as they are typed on the command line.

``main-similar[main=0.8,warmup=500]`` is a name with two options. Brackets nest (``single[main=vgg11[norm=batch]]``),
``[a,b]`` as a value sweeps (``dc[lr_img=[0.1,1]]``), a list that is one value is joined by ``+``
(``others=lenet+vgg11``), and a value in double quotes is taken as it stands (``folder[path="/data/a,b"]``; a double
quote within it is written twice).
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.types.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9_.:-]+")
_KEY = re.compile(r"[A-Za-z0-9_.-]+")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_BRACKETED = re.compile(r"[A-Za-z0-9_.:-]+\[.*\]", re.DOTALL)


@dataclass(frozen=True)
class Name:
    """A name and the options given with it, as text; what is not given keeps its default."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}[{','.join(f'{key}={_quoted(value)}' for key, value in self.options)}]"

    def with_defaults(self, defaults: dict[str, str]) -> "Name":
        """The same name with ``defaults`` for the options that were not given."""
        given = dict(self.options)
        missing = tuple((key, value) for key, value in defaults.items() if key not in given)
        return Name(self.name, self.options + missing)


def expand(text: str) -> list[Name]:
    """Parse ``text`` and multiply out its sweeps, the last option varying fastest.

    Raises:
        UsageError: the text is not a name with options in brackets.
    """
    text = text.strip()
    head = _NAME.match(text)
    if not head:
        raise UsageError(f"{text!r} is not a name; write NAME or NAME[option=value,...]")
    rest = text[head.end() :]
    if not rest:
        return [Name(head.group())]
    if not (rest.startswith("[") and rest.endswith("]")):
        raise UsageError(f"{text!r} cannot be read after {head.group()!r}; write NAME[option=value,...]")
    pairs = [_pair(part, text) for part in split(rest[1:-1], ",") if part.strip()]
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"option {key!r} is given twice in {text!r}; to sweep, write {key}=[a,b]")
    choices = [list(_values(value)) for _, value in pairs]
    return [Name(head.group(), tuple(zip(keys, values, strict=True))) for values in itertools.product(*choices)]


def parse(text: str) -> Name:
    """Parse ``text``, which must not sweep.

    Raises:
        UsageError: the text cannot be read, or it stands for several names.
    """
    names = expand(text)
    if len(names) > 1:
        raise UsageError(f"{text!r} sweeps, which is only possible in a run's own options")
    return names[0]


def split(text: str, separator: str) -> list[str]:
    """Split at each ``separator`` that is outside brackets and quotes.

    Raises:
        UsageError: brackets or quotes do not close.
    """
    parts, depth, quoted = [""], 0, False
    for char in text:
        if char == '"':
            quoted = not quoted
        elif not quoted:
            depth += {"[": 1, "]": -1}.get(char, 0)
        if depth < 0:
            break
        if char == separator and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += char
    if depth != 0 or quoted:
        raise UsageError(f"brackets or quotes do not close in {text!r}")
    return parts


def _pair(part: str, text: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if not equals or not _KEY.fullmatch(key.strip()) or not value.strip():
        raise UsageError(f"{part.strip()!r} in {text!r} is not option=value")
    return key.strip(), value.strip()


def _values(value: str) -> Iterator[str]:
    if _QUOTED.fullmatch(value):
        yield value[1:-1].replace('""', '"')
    elif value.startswith("[") and value.endswith("]"):
        for part in split(value[1:-1], ","):
            yield from _values(part.strip())
    elif "[" in value and len(parts := split(value, "+")) > 1:
        yield from ("+".join(choice) for choice in itertools.product(*(list(_values(part)) for part in parts)))
    elif _BRACKETED.fullmatch(value):
        yield from (str(name) for name in expand(value))
    else:
        yield value


def _quoted(value: str) -> str:
    """The value as it is typed: in quotes where it would be read as something else without."""
    try:
        plain = value == value.strip() != "" and len(split(value, ",")) == 1 and list(_values(value)) == [value]
    except UsageError:
        plain = False
    return value if plain else '"' + value.replace('"', '""') + '"'
