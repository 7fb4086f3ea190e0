"""Names with options in brackets, as they are typed on the command line.

``main-similar[main=0.8,warmup=500]`` is a name with two options. Brackets nest (``single[main=vgg11[norm=batch]]``),
``[a,b]`` as a value sweeps (``dc[lr_img=[0.1,1]]``), a list that is one value is joined by ``+``
(``others=lenet+vgg11``), and a value in double quotes is taken literally (``folder[path="/data/a,b"]``; a double
quote within it is written twice). ``similar=main-similar[main=0.8]`` gives the name a label, which tables show.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from harness.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9_.:-]+")
_KEY = re.compile(r"[A-Za-z0-9_.-]+")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_BRACKETED = re.compile(r"[A-Za-z0-9_.:-]+\[.*\]", re.DOTALL)
_LABELLED = re.compile(r"([^\[\]=\"]*)=(.*)", re.DOTALL)
_RESERVED = "[]=,+:\"'`\\|<>"
MOST_LABEL = 40
"""How many characters a label may have."""
MOST_DEPTH = 20
"""How deep brackets may nest: far beyond any meaningful name, and within the parser's stack."""
MOST_VARIANTS = 10_000
"""How many names a text may expand to, outside of a run's own options, which have their own limit."""


@dataclass(frozen=True)
class Name:
    """A name with the options that were typed with it, as text; other options keep their defaults."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}[{','.join(f'{key}={_quoted(value)}' for key, value in self.options)}]"

    def with_defaults(self, defaults: dict[str, str]) -> "Name":
        """Return the name with ``defaults`` for the options that it does not set."""
        present = dict(self.options)
        missing = tuple((key, value) for key, value in defaults.items() if key not in present)
        return Name(self.name, self.options + missing)


def expand(text: str, most: int = MOST_VARIANTS) -> list[Name]:
    """Parse ``text`` and expand its sweeps, the last option varying fastest.

    Args:
        text: the name, with options in brackets.
        most: the highest number of names that it may expand to.

    Raises:
        UsageError: the text is not a name with options in brackets, or it stands for too many.
    """
    pattern = _parse_pattern(text)
    # The count is a product, known without expanding: a text of a few characters can stand for billions of names.
    if pattern.count > most:
        raise UsageError(f"{text!r} stands for {pattern.count:,} names, more than {most:,}: sweep fewer values")
    return list(pattern.names())


def count_variants(text: str) -> tuple[str, int]:
    """Return the name without options and the number of names that `expand` would return, without building them.

    Raises:
        UsageError: the text is not a name with options in brackets.
    """
    pattern = _parse_pattern(text)
    return pattern.name, pattern.count


def first_variant(text: str) -> Name:
    """Return the first of the names that `expand` would return.

    Raises:
        UsageError: the text is not a name with options in brackets.
    """
    return next(_parse_pattern(text).names())


def parse_name(text: str) -> Name:
    """Parse ``text`` as a single name, without sweeps.

    Raises:
        UsageError: the text cannot be read, or it stands for several names.
    """
    pattern = _parse_pattern(text)
    if pattern.count > 1:
        raise UsageError(f"{text!r} sweeps, which is only possible in a run's own options")
    return next(pattern.names())


@lru_cache(maxsize=4096)  # tables hold few names, each in thousands of scores
def name_or_text(text: str) -> Name:
    """Parse ``text``; a text that is not a name, such as ``file:my set.pt``, becomes a name without options."""
    try:
        return parse_name(text)
    except UsageError:
        return Name(text)


def split(text: str, separator: str) -> list[str]:
    """Split a text at each ``separator`` that is outside brackets and quotes.

    Raises:
        UsageError: brackets or quotes do not close, or brackets nest too deep.
    """
    parts, start, depth, quoted = [], 0, 0, False
    for sign in re.finditer(rf'["\[\]{re.escape(separator)}]', text):
        if sign.group() == '"':
            quoted = not quoted
        elif quoted:
            continue
        # Separators inside brackets belong to an option's value, which is split when that value is parsed.
        elif sign.group() == separator:
            if depth == 0:
                parts.append(text[start : sign.start()])
                start = sign.end()
        else:
            depth += 1 if sign.group() == "[" else -1
            if depth > MOST_DEPTH:
                raise UsageError(f"brackets nest more than {MOST_DEPTH} deep in {text!r}")
            if depth < 0:
                break
    if depth != 0 or quoted:
        raise UsageError(f"brackets or quotes do not close in {text!r}")
    return [*parts, text[start:]]


def split_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Split texts that may hold several names each: ``mlp,convnet[width=16,depth=2]`` is two.

    The names of files (``file:...``) may hold commas themselves, so they are not split; what cannot be split stays
    whole, for whoever reads the name to refuse.
    """
    return tuple(name.strip() for text in texts for name in _several(text))


def _several(text: str) -> list[str]:
    try:
        # A file's name may hold commas and brackets, and no rule of ours can change what a user's file is called.
        return [text] if text.startswith("file:") else split(text, ",")
    except UsageError:
        return [text]


def split_label(text: str) -> tuple[str, str]:
    """Split ``similar=main-similar[warmup=500]`` into the label and the name; without a label that is empty."""
    labelled = None if text.startswith("file:") else _LABELLED.fullmatch(text)
    return (labelled[1].strip(), labelled[2].strip()) if labelled else ("", text)


def read_labels(texts: Sequence[str]) -> dict[str, str]:
    """Return labels with the names that they stand for, from texts ``LABEL=NAME``.

    Raises:
        UsageError: a label has a reserved character, stands for several names, or is not the only one of its name.
    """
    names: dict[str, str] = {}
    for text in texts:
        label, _, name = (part.strip() for part in text.partition("="))
        if not name:
            raise UsageError(f"label {text!r} is not LABEL=NAME, for instance similar=main-similar[warmup=500]")
        _check_label(label, name)
        if names.setdefault(label, name) != name:
            raise UsageError(f"label {label!r} stands for {names[label]} and for {name}: choose another for either")
    labels: dict[str, str] = {}
    for label, name in names.items():
        if labels.setdefault(name, label) != label:
            raise UsageError(f"{name} has the labels {labels[name]!r} and {label!r}: give it one")
    return names


def _check_label(label: str, name: str) -> None:
    if label == "all" or not label or len(label) > MOST_LABEL:
        raise UsageError(f"label {label!r} of {name} is not possible: write 1 to {MOST_LABEL} characters, and not all")
    reserved = sorted({letter for letter in label if letter in _RESERVED or not letter.isprintable()})
    if reserved:
        signs = " ".join(letter if letter.isprintable() else repr(letter) for letter in reserved)
        raise UsageError(
            f"label {label!r} of {name} has reserved characters: {signs}; use letters, digits, spaces, - . _"
        )
    if not name.startswith("file:") and (name == "all" or count_variants(name)[1] > 1):
        raise UsageError(f"label {label!r} is for a single arm, but {name} stands for several: name each of them")


class _Pattern(Protocol):
    """A value that may sweep: the number of texts that it expands to, and the texts."""

    @property
    def count(self) -> int: ...

    def texts(self) -> Iterator[str]: ...


@dataclass(frozen=True)
class _Text:
    """A text that expands to itself."""

    text: str
    count: int = 1

    def texts(self) -> Iterator[str]:
        """Yield the text."""
        yield self.text


@dataclass(frozen=True)
class _AnyOf:
    """A sweep: ``[a,b]``."""

    parts: tuple[_Pattern, ...]

    @property
    def count(self) -> int:
        """The sum over its parts."""
        return sum(part.count for part in self.parts)

    def texts(self) -> Iterator[str]:
        """Yield the texts of each part in turn."""
        return itertools.chain.from_iterable(part.texts() for part in self.parts)


@dataclass(frozen=True)
class _Joined:
    """A list that is one value: ``a+b``."""

    parts: tuple[_Pattern, ...]

    @property
    def count(self) -> int:
        """The product over its parts."""
        return math.prod(part.count for part in self.parts)

    def texts(self) -> Iterator[str]:
        """Yield every combination of its parts."""
        return ("+".join(choice) for choice in itertools.product(*(part.texts() for part in self.parts)))


@dataclass(frozen=True)
class _NamePattern:
    """A name whose options may sweep."""

    name: str
    keys: tuple[str, ...] = ()
    values: tuple[_Pattern, ...] = ()

    @property
    def count(self) -> int:
        """The product over the options."""
        return math.prod(value.count for value in self.values)

    def names(self) -> Iterator[Name]:
        """Yield every combination of the options, the last one varying fastest."""
        for choice in itertools.product(*(value.texts() for value in self.values)):
            yield Name(self.name, tuple(zip(self.keys, choice, strict=True)))

    def texts(self) -> Iterator[str]:
        """Yield the names as they are typed."""
        return map(str, self.names())


def _parse_pattern(text: str) -> _NamePattern:
    text = text.strip()
    head = _NAME.match(text)
    if not head:
        raise UsageError(f"{text!r} is not a name; write NAME or NAME[option=value,...]")
    rest = text[head.end() :]
    if not rest:
        return _NamePattern(head.group())
    if not (rest.startswith("[") and rest.endswith("]")):
        raise UsageError(f"{text!r} cannot be read after {head.group()!r}; write NAME[option=value,...]")
    pairs = [_pair(part, text) for part in split(rest[1:-1], ",") if part.strip()]
    (twice,) = Counter(key for key, _ in pairs).most_common(1) or [("", 0)]
    if twice[1] > 1:
        raise UsageError(f"option {twice[0]!r} is given twice in {text!r}; to sweep, write {twice[0]}=[a,b]")
    return _NamePattern(head.group(), tuple(key for key, _ in pairs), tuple(_parse_value(value) for _, value in pairs))


def _pair(part: str, text: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if not equals or not _KEY.fullmatch(key.strip()) or not value.strip():
        raise UsageError(f"{part.strip()!r} in {text!r} is not option=value")
    return key.strip(), value.strip()


def _parse_value(value: str) -> _Pattern:
    if _QUOTED.fullmatch(value):
        return _Text(value[1:-1].replace('""', '"'))
    # A plain list joined by ``+`` stays one text: only sweeps inside its parts make it a pattern.
    if "[" in value and len(parts := split(value, "+")) > 1:
        return _Joined(tuple(map(_parse_value, parts)))
    if value.startswith("[") and value.endswith("]"):
        return _AnyOf(tuple(_parse_value(part.strip()) for part in split(value[1:-1], ",")))
    return _parse_pattern(value) if _BRACKETED.fullmatch(value) else _Text(value)


@lru_cache(maxsize=256)  # each level of brackets asks again for those within it
def _quoted(value: str) -> str:
    """Return the value as it is typed: in quotes if it would be parsed as something else without."""
    try:
        pattern = _parse_value(value)
        plain = value == value.strip() != "" and len(split(value, ",")) == 1
        plain = plain and pattern.count == 1 and next(pattern.texts()) == value
    except UsageError:
        plain = False
    return value if plain else '"' + value.replace('"', '""') + '"'
