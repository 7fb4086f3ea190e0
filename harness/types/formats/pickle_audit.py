"""An audit that follows a pickle without executing it, and refuses what would take memory, time or the stack.

``torch.load(weights_only=True)`` runs no code of the file, but it calls its allowed functions with the sizes that the
file names (``bytearray``, empty storages), and Python hashes a key of nested tuples without any limit.
"""

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from harness.errors import DataError
from harness.types.formats.content import in_one_line

MOST_STEPS = 2**21
"""Highest number of operations that are followed: seconds of work."""
_LARGEST_KEY = 64
"""Highest number of parts of a tuple that is the key of a dictionary."""
_HUGE = 2**40

_NUMPY_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_PLAIN_DTYPE = re.compile(r"[<>=|]?[bfiu][0-9]{1,2}")
_NOT_PLAIN = "holds a tensor that is not plain (sparse, quantized, or without values)"


@dataclass(frozen=True)
class _Global:
    """A global name that the pickle asks for."""

    name: str


@dataclass(frozen=True)
class _Tuple:
    """A tuple, with the number of all parts that are visited when it is hashed: shared parts count each time."""

    items: tuple["_Item", ...]
    parts: int


_Item = int | str | _Global | _Tuple | None
"""An item on the stack; None stands for anything whose value does not matter."""


class PickleAudit:
    """An audit of the pickles of one file, followed one after another.

    Args:
        name: the file's name in messages.
        content: bytes that begin with the pickles.

    Attributes:
        numbers: the whole numbers in the pickle that was followed last.
        storages: the sizes of its storages, in values.
    """

    def __init__(self, name: str, content: bytes) -> None:
        self._name, self._stream = name, BytesIO(content)
        self._steps = 0
        self.numbers: list[int] = []
        self.storages: list[int] = []

    def follow(self) -> None:
        """Follow the next pickle of the file.

        Raises:
            DataError: it asks for something that no distilled set needs, or takes too many steps.
            Exception: it is damaged, in one of many ways.
        """
        self.numbers, self.storages = [], []
        self._stack: list[_Item] = []
        self._below: list[list[_Item]] = []
        self._memo: dict[int, _Item] = {}
        for operation, value, _ in pickletools.genops(self._stream):
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise DataError(
                    f"{self._name} has a pickle of more than {MOST_STEPS:,} steps: that is not a distilled set"
                )
            follow_step = _STEPS.get(operation.name)
            if follow_step is None:
                raise ValueError(f"torch.save writes no {operation.name}")
            follow_step(self, value)

    def _pushes(self, value: object) -> None:
        self._stack.append(value if isinstance(value, str) else None)

    def _pushes_number(self, value: int) -> None:
        self.numbers.append(value)
        self._stack.append(value)

    def _pushes_global(self, value: str) -> None:
        self._stack.append(_Global(value.replace(" ", ".")))

    def _pops(self, _: object) -> None:
        self._stack.pop()

    def _marks(self, _: object) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _to_mark(self) -> list[_Item]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _pops_to_mark(self, _: object) -> None:
        self._to_mark()

    def _makes_tuple(self, _: object) -> None:
        self._push_tuple(self._to_mark())

    def _last(self, count: int) -> list[_Item]:
        if len(self._stack) < count:
            raise ValueError("its stack is empty")
        items = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return items

    def _push_tuple(self, items: list[_Item]) -> None:
        parts = 1 + sum(item.parts if isinstance(item, _Tuple) else 1 for item in items)
        # Ten tuples, each of ten times the one before, make 10**10 parts in a few bytes: Python would hash them for
        # hours.
        self._stack.append(_Tuple(tuple(items), min(parts, _HUGE)))

    def _sets_item(self, _: object) -> None:
        self._check_keys(self._last(2))

    def _sets_items(self, _: object) -> None:
        self._check_keys(self._to_mark())

    def _check_keys(self, items: list[_Item]) -> None:
        for key in items[::2]:
            if isinstance(key, _Tuple) and key.parts > _LARGEST_KEY:
                raise DataError(
                    f"{self._name} has a dictionary whose keys are nested tuples: that is not a distilled set"
                )

    def _stores(self, value: int) -> None:
        self._memo[value] = self._stack[-1]

    def _recalls(self, value: int) -> None:
        self._stack.append(self._memo[value])

    def _asks_for_storage(self, _: object) -> None:
        identity = self._stack.pop()
        # torch names a storage by ("storage", type, key, device, size); the size is what torch.load allocates.
        count = identity.items[4] if isinstance(identity, _Tuple) and len(identity.items) in (5, 6) else None
        if not isinstance(count, int):
            raise ValueError("the size of a storage is hidden")
        self.storages.append(count)
        self._stack.append(None)

    def _calls(self, _: object) -> None:
        function, arguments = self._last(2)
        name = function.name if isinstance(function, _Global) else "something unknown"
        items = arguments.items if isinstance(arguments, _Tuple) else (None,)
        # A list of what is allowed, not of what is dangerous: a new function of torch or NumPy is refused until it was
        # looked at.
        check = _CALLS.get(name)
        if check is None and name.startswith("torch."):
            raise DataError(f"{self._name} {_NOT_PLAIN}")
        if check is None or not check(items):
            raise DataError(
                f"{self._name} is not read, because it could run code: it asks for {in_one_line(name[:100])}"
            )
        self._stack.append(None)


def _anything(_: tuple[_Item, ...]) -> bool:
    return True


def _nothing(arguments: tuple[_Item, ...]) -> bool:
    return not arguments


def _is_plain_dtype(arguments: tuple[_Item, ...]) -> bool:
    return bool(arguments) and isinstance(arguments[0], str) and _PLAIN_DTYPE.fullmatch(arguments[0]) is not None


def _is_latin(arguments: tuple[_Item, ...]) -> bool:
    return len(arguments) == 2 and arguments[1] == "latin1"


_CALLS: dict[str, Callable[[tuple[_Item, ...]], bool]] = {
    "torch._utils._rebuild_tensor": _anything,
    "torch._utils._rebuild_tensor_v2": _anything,
    "torch._utils._rebuild_tensor_v3": _anything,
    "torch._utils._rebuild_parameter": _anything,
    "torch.Size": _anything,
    "torch.device": _anything,
    "collections.OrderedDict": _nothing,
    "numpy.dtype": _is_plain_dtype,
    **dict.fromkeys(_NUMPY_SCALARS, _anything),
    "_codecs.encode": _is_latin,
}
"""The functions that a file may call, each with a check of its arguments."""

_STEPS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("PROTO", "STOP"), lambda *_: None),
    **dict.fromkeys(("NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"),
                    lambda audit, _: audit._pushes(None)),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINSTRING"), PickleAudit._pushes),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), PickleAudit._pushes_number),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), PickleAudit._stores),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), PickleAudit._recalls),
    **dict.fromkeys(("APPEND", "BUILD"), PickleAudit._pops),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), PickleAudit._calls),
    "GLOBAL": PickleAudit._pushes_global,
    "MARK": PickleAudit._marks,
    "APPENDS": PickleAudit._pops_to_mark,
    "SETITEM": PickleAudit._sets_item,
    "SETITEMS": PickleAudit._sets_items,
    "EMPTY_TUPLE": lambda audit, _: audit._push_tuple([]),
    "TUPLE": PickleAudit._makes_tuple,
    "TUPLE1": lambda audit, _: audit._push_tuple(audit._last(1)),
    "TUPLE2": lambda audit, _: audit._push_tuple(audit._last(2)),
    "TUPLE3": lambda audit, _: audit._push_tuple(audit._last(3)),
    "BINPERSID": PickleAudit._asks_for_storage,
}  # fmt: skip
"""The operations that torch.save writes, by their names in `pickletools`; any other makes the file invalid."""
