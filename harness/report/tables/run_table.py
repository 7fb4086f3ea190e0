"""The cross-architecture table: one line an arm, one column an architecture, and beneath it all that it rests on."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from harness.report.comparing.code_versions import MIXED, MIXED_MEANS
from harness.report.published import Published, published_for
from harness.report.tables.drawing import Column, Grid, Line, Words, draw
from harness.types.hold_out import HoldOut
from harness.types.plurals import counted, plural

_LINE = ("dataset", "ipc", "iterations", "method", "pool", "evaluator")
_MARKS = {"diverged": "†", "blown up": "‡", "incomplete": "…", "failed": "✗"}
_MEANING = {
    "diverged": "† the distillation diverged; its last set in range was scored",
    "blown up": "‡ the distilled images are more than 8 times as large as real ones",
    "incomplete": "… not all students are there",
    "failed": "✗ nothing could be scored",
}
_MOST_DRAWN = 4
"""Architectures of a pool that are named with their count; the others are counted together."""
_TURNED = ("student", "accuracy")
Row = Mapping[str, Any]


def print_table(rows: Sequence[Row], notes: Iterable[str] = (), file: TextIO | None = None) -> None:
    """Print the rows of a run."""
    file = file or sys.stdout
    file.write(draw(layout(rows, notes), file))
    file.flush()


def layout(rows: Sequence[Row], notes: Iterable[str] = ()) -> list[Grid | Words]:
    """The table with what stands above and beneath it."""
    varying = [key for key in _LINE if len({row[key] for row in rows}) > 1]
    shared = [_told(key, rows[0][key]) for key in _LINE if key not in varying and rows and rows[0][key] is not None]
    architectures = list(dict.fromkeys(row["architecture"] for row in rows))
    names = varying or ["evaluator"]
    columns = [*map(Column, names), *(Column(architecture, right=True) for architecture in architectures)]
    lines = tuple(line for same in _lines(rows) for line in _drawn_lines(same, names, architectures))
    grid = Grid(tuple(columns), lines, heading_columns=len(names), turned=_TURNED)
    return [Words("  ".join(shared), "bold"), grid, Words("\n".join(_beneath(rows, notes)))]


def _drawn_lines(same: Sequence[Row], names: Sequence[str], architectures: Sequence[str]) -> Iterator[Line]:
    """The line of an arm, and beneath it what is published for it."""
    by_name = {row["architecture"]: row for row in same}
    cells = [_cell(by_name[name]) if name in by_name else "" for name in architectures]
    yield Line((*(str(_or_dash(same[0][key])) for key in names), *cells))
    beside = {name: reference for name, row in by_name.items() if (reference := published_for(row))}
    if beside:
        numbers = [_reference(beside.get(name)) for name in architectures]
        yield Line(("published", *[""] * (len(names) - 1), *numbers), style="dim", title="published")


def _lines(rows: Sequence[Row]) -> list[list[Row]]:
    lines: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        lines.setdefault(tuple(row[key] for key in _LINE), []).append(row)
    return list(lines.values())


def _cell(row: Row) -> str:
    mark = _MARKS.get(row["status"], "")
    if row["mean"] is None:
        return f"–{mark}"
    spread = _percent(row["std_students"], "±") + _percent(row["std_distillations"], " ±")
    mixed = MIXED if _is_mixed(row) else ""
    collapsed = f" ({row['collapsed']} collapsed)" if row["collapsed"] else ""
    return f"{100 * row['mean']:.1f}{spread}{mark}{mixed}{collapsed}"


def _is_mixed(row: Row) -> bool:
    return int(row.get("code_versions", 1)) > 1


def _reference(reference: Published | None) -> str:
    if reference is None:
        return ""
    return f"{reference.accuracy:.1f}" + (f"±{reference.std:.1f}" if reference.std is not None else "")


def _percent(value: float | None, sign: str) -> str:
    return "" if value is None else f"{sign}{100 * value:.1f}"


def _beneath(rows: Sequence[Row], notes: Iterable[str]) -> list[str]:
    """Captions: what the numbers are, the protocols, marks, copies, sources, notes."""
    split = " and ".join(sorted({row["score_on"] for row in rows}))
    students, distillations = (max((row[key] for row in rows), default=0) for key in ("students", "distillations"))
    several = " ±between distillations" if distillations > 1 else ""
    spread = f" ±between students{several} (standard deviations, ddof 1)" if students > 1 or distillations > 1 else ""
    counts = f"{counted(students, 'student')} on each of {counted(distillations, 'distillation')}"
    seeds = _field(", seed ", _join(row["seed"] for row in rows))
    lines = [f"accuracy{_field(' on ', split)} in %, mean{spread}; {counts}{seeds}"]
    protocols, devices = (_join(row[key] for row in rows) for key in ("protocol", "device"))
    made_by = [_field("protocol: ", protocols), _field("device: ", devices)]
    lines += ["; ".join(filter(None, made_by))] if any(made_by) else []
    lines += [meaning for status, meaning in _MEANING.items() if any(row["status"] == status for row in rows)]
    if any(map(_is_mixed, rows)):
        lines.append(f"{MIXED} {MIXED_MEANS}")
    if any(row["collapsed"] for row in rows):
        lines.append(
            "collapsed: loss not finite, or one class given to at least 99 % of the images; counted in the mean"
        )
    copies = {(row["dataset"], row["like"]) for row in rows if row["like"] and row["like"] != row["dataset"]}
    lines += [f"{dataset} is a copy of {like}" for dataset, like in sorted(copies)]
    lines += [_choice(row, rows) for row in rows if row.get("chosen")]
    lines += _splits(rows)
    lines += _mixes(rows)
    sources = {reference.source for row in rows if (reference := published_for(row))}
    lines += [f"published: {source}" for source in sorted(sources)]
    return lines + list(notes)


def _mixes(rows: Sequence[Row]) -> list[str]:
    """For each pool that drew several architectures, how often each really came."""
    drawn = {(row["pool"], _row_name(row, rows)): mix for row in rows if (mix := _mix(row.get("draws") or {}))}
    lines = []
    for pool in dict.fromkeys(pool for pool, _ in drawn):
        mixes = {name: mix for (one, name), mix in drawn.items() if one == pool}
        if len(set(mixes.values())) == 1:
            lines.append(f"drawn by {pool}: {next(iter(mixes.values()))}")
        else:
            lines += [f"drawn by {pool} in {name}: {mix}" for name, mix in mixes.items()]
    return lines


def _mix(draws: Mapping[str, int]) -> str:
    if len(draws) < 2:
        return ""
    ordered = sorted(draws.items(), key=lambda item: -item[1])
    listed, rest = ordered[:_MOST_DRAWN], ordered[_MOST_DRAWN:]
    more = [f"{len(rest)} others {sum(count for _, count in rest)}"] if rest else []
    return ", ".join([*(f"{name} {count}" for name, count in listed), *more])


def _row_name(row: Row, rows: Sequence[Row]) -> str:
    """What tells the row's distillation from others through the same pool."""
    keys = ("dataset", "ipc", "iterations", "method")
    varying = [key for key in keys if len({other[key] for other in rows}) > 1 and row[key] is not None]
    return " ".join(_told(key, row[key]) for key in varying)


def _choice(row: Row, rows: Sequence[Row]) -> str:
    """What was chosen for a row, from which scores on which images."""
    chosen, split = row["chosen"], HoldOut.from_json(row.get("validation"))
    varying = [key for key in _LINE if len({other[key] for other in rows}) > 1 and row[key] is not None]
    words = [_told(key, row[key]) for key in varying if row[key] != chosen["value"]]
    on = f" on validation ({split})" if split else ""
    return f"{' '.join([*words, row['architecture']])}: {chosen['value']} chosen from {_curve(chosen)}{on}"


def _splits(rows: Sequence[Row]) -> list[str]:
    """For each data set, the validation split that was scored, or that the sets scored on test were made without."""
    lines: dict[str, None] = {}
    for row in rows:
        split = HoldOut.from_json(row.get("hold_out"))
        if split and row["score_on"] == "test":
            lines[f"{row['dataset']}: distilled from fewer images, without the validation split: {split}"] = None
        elif split:
            lines[f"{row['dataset']}: validation is {split}"] = None
    return list(lines)


def _curve(chosen: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {100 * mean:.1f}" for name, mean in chosen["curve"].items())


def _told(key: str, value: Any) -> str:  # noqa: ANN401
    if key == "iterations":
        return f"{value} {plural(value, 'iteration')}"
    return f"{key} {value}" if key == "ipc" else str(value)


def _join(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _or_dash(value: object) -> object:
    return "–" if value is None else value


def _field(label: str, value: str) -> str:
    """A value with its label; nothing if there is none."""
    return f"{label}{value}" if value else ""
