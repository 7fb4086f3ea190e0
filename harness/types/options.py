"""Options of a component: frozen and typed, each with its meaning and the source of its default."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo

from harness.errors import UsageError, did_you_mean
from harness.types.names import Name, split
from harness.types.plurals import counted


class Options(pydantic.BaseModel):
    """Base class of all options: values arrive as text, are converted to the declared type and checked.

    Declare each option with `option`: ``lr_img: float = option(0.1, "learning rate of the images", source="DC")``. An
    option whose name is a keyword of Python is declared with an underscore at its end: ``as_`` is typed as ``as``.
    """

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        alias_generator=lambda name: name.removesuffix("_"),
        populate_by_name=True,
    )

    @classmethod
    def fields_by_name(cls) -> dict[str, FieldInfo]:
        """Return the declaration of each option by the name that is typed."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _auto_is_none(cls, values: Any) -> Any:  # noqa: ANN401
        """Replace ``auto`` by None in options that may be left to the component."""
        if not isinstance(values, dict):
            return values
        unset = {key for key, field in cls.fields_by_name().items() if type(None) in get_args(field.annotation)}
        return {key: None if key in unset and value == "auto" else value for key, value in values.items()}

    @classmethod
    def from_name(cls, name: Name) -> "Options":
        """Build the options from those typed with ``name``, and check them.

        Raises:
            UsageError: an option is unknown or outside its range; one line, with the nearest known names.
        """
        values = cls._gathered(name)
        for key in values:
            if key not in cls.fields_by_name():
                known = did_you_mean(key, cls.fields_by_name()) if cls.model_fields else "it takes no options"
                raise UsageError(f"{name.name!r} has no option {key!r}: {known}")
        try:
            return cls(**values)
        except pydantic.ValidationError as error:
            # One line can hold one fault; the others show up when this one is corrected.
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"][:1])
            # Of a table, the message names the entry.
            value = values.get(where) if where not in cls._tables() else "..."
            raise UsageError(_one_line(name.name, where, value, _message(error))) from None

    @classmethod
    def _tables(cls) -> set[str]:
        """Return the names of the options that are tables."""
        return {key for key, field in cls.fields_by_name().items() if field.annotation == _ENTRIES}

    @classmethod
    def _gathered(cls, name: Name) -> dict[str, Any]:
        """Return the typed options, with the entries of each table together: ``sbatch.gres`` belongs to ``sbatch``."""
        values: dict[str, Any] = {}
        for key, value in name.options:
            table, dot, entry = key.partition(".")
            if dot and table in cls._tables():
                values.setdefault(table, []).append((entry, value))
            elif key in cls._tables():
                raise UsageError(f"{name.name}[{key}=...]: its entries have names: write {key}.NAME=VALUE")
            else:
                values[key] = value
        return values

    def defaults(self) -> dict[str, Any]:
        """Return the value that each option has if it is not typed, beside those that are.

        A class whose defaults depend on another option (a protocol) replaces it, and fills them in before validation.
        """
        return {key: field.default for key, field in type(self).model_fields.items()}

    def changed(self) -> dict[str, str]:
        """Return the options that differ from their defaults, as text that `from_name` can parse."""
        fields, defaults = type(self).model_fields, self.defaults().items()
        values = ((fields[key].alias or key, getattr(self, key), default) for key, default in defaults)
        changed = {key: value for key, value, default in values if value != default}
        tables = {key: changed.pop(key) for key in self._tables() & changed.keys()}
        entries = {f"{key}.{entry}": text for key, table in tables.items() for entry, text in table}
        return {key: as_text(value) for key, value in changed.items()} | entries

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value, as JSON: part of a cell's key."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def describe(cls) -> Iterator[dict[str, str]]:
        """Yield name, type, default, meaning and source of each option."""
        for key, field in cls.fields_by_name().items():
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            yield {
                "name": key,
                "type": _type_name(field.annotation),
                "default": "required" if field.is_required() else as_text(field.get_default(call_default_factory=True)),
                "meaning": field.description or "",
                "source": str(extra.get("source", "")),
            }


def option(default: Any, meaning: str, *, source: str = "", **constraints: Any) -> Any:  # noqa: ANN401
    """Declare an option.

    Args:
        default: the default, or ``...`` if the option is required.
        meaning: what the option does, with unit and range.
        source: the paper, equation or code of the default.
        constraints: constraints of `pydantic.Field` (``gt``, ``ge``, ``le``, ...).
    """
    return pydantic.Field(default, description=meaning, json_schema_extra={"source": source}, **constraints)


def _split_list(value: Any) -> Any:  # noqa: ANN401
    return tuple(part.strip() for part in split(value, "+") if part.strip()) if isinstance(value, str) else value


NameList = Annotated[tuple[str, ...], pydantic.BeforeValidator(_split_list)]
"""A list that is one value, joined by ``+``: ``others=lenet+vgg11[norm=batch]``."""

_ENTRIES = tuple[tuple[str, str], ...]
OptionTable = Annotated[_ENTRIES, pydantic.AfterValidator(lambda entries: tuple(sorted(entries)))]
"""A table of named entries, typed as one option each: ``sbatch.gres=gpu:2,sbatch.exclusive=true``."""


def as_text(value: Any) -> str:  # noqa: ANN401
    """Return a value as it is typed in brackets."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "+".join(as_text(part) for part in value)
    if value is None:
        return "auto"
    # ``:g`` is shorter but rounds to six digits; a name that is read back must give the same value.
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _type_name(annotation: Any) -> str:  # noqa: ANN401
    choices = [choice for choice in get_args(annotation) if get_origin(choice) is Literal]
    if choices and type(None) in get_args(annotation):
        return f"{_type_name(choices[0])}|auto"
    text = getattr(annotation, "__name__", "") if isinstance(annotation, type) else str(annotation)
    text = text.replace("typing.", "").replace("NoneType", "auto").replace("None", "auto")
    if text.startswith("Literal["):
        text = text[len("Literal[") : -1].replace("'", "").replace(", ", "|")
    lists = {"tuple[str, ...]": "names joined by +", "tuple[int, ...] | auto": "whole numbers joined by +|auto"}
    return {**lists, "tuple[tuple[str, str], ...]": "table"}.get(text, text)


def _message(error: pydantic.ValidationError) -> str:
    """Return what is wrong with the first value; of a list that is too short, without the words for a tuple."""
    first = error.errors()[0]
    if first["type"] == "too_short":
        return f"should be at least {counted(first['ctx']['min_length'], 'name')}, joined by +"
    return first["msg"]


def _one_line(component: str, key: str, value: str | None, message: str) -> str:
    message = message.removeprefix("Value error, ").replace("Input should be", "should be")
    if not key:
        return f"{component}: {message}"
    if value is None:
        return f"{component!r} needs its option {key!r}: write {component}[{key}=...] ({message})"
    return f"{component}[{key}={value}]: {message}"
