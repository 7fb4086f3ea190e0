"""The cross-architecture table: a line for each arm, a column for each architecture, and captions below."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from harness.report.comparing.code_versions import MIXED
from harness.report.comparing.metrics import whole_names
from harness.report.published import Published, published_for
from harness.report.tables.drawing import Column, Grid, Line, Words, draw
from harness.report.tables.wording import (
    DASH,
    MARKS,
    collapsed_lines,
    comma_list,
    copy_lines,
    describe_value,
    labelled,
    mark_lines,
    mixed_code_lines,
    optimism,
    or_dash,
    percent,
    protocol_lines,
    published_lines,
    real_data_lines,
    real_data_mark,
    significant,
    spread_caption,
    spreads,
    tenths,
)
from harness.types.data.hold_out import HoldOut
from harness.types.plurals import counted

LINE = ("dataset", "ipc", "iterations", "method", "pool", "evaluator")
_MOST_DRAWN = 4
"""Number of a pool's architectures that are named with their count; the others are counted together."""
_TURNED = ("student", "accuracy")
Row = Mapping[str, Any]


def print_table(
    rows: Sequence[Row],
    notes: Iterable[str] = (),
    file: TextIO | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Print the rows of a run as a table, with labels in place of the names that have one."""
    file = file or sys.stdout
    file.write(draw(layout(rows, notes, labels or {}), file))
    file.flush()


def layout(rows: Sequence[Row], notes: Iterable[str], labels: Mapping[str, str]) -> list[Grid | Words]:
    """Lay out the table with its title and its captions."""
    varying = [key for key in LINE if len({row[key] for row in rows}) > 1]
    common = {key: rows[0][key] for key in LINE if rows and key not in varying}
    shared = [_shown(describe_value(key, value), labels) for key, value in common.items() if value is not None]
    architectures = list(dict.fromkeys(row["architecture"] for row in rows))
    # A table needs at least one column that identifies its rows.
    names = varying or ["evaluator"]
    columns = [*map(Column, names), *(Column(_shown(name, labels), right=True) for name in architectures)]
    lines = tuple(line for same in by_line(rows) for line in _drawn_lines(same, names, architectures, labels))
    grid = Grid(tuple(columns), lines, heading_columns=len(names), turned=_TURNED)
    legend = [f"{label}: {name}" for name, label in labels.items()]
    return [Words("  ".join(shared), "bold"), grid, Words("\n".join([*legend, *_captions(rows, notes)]))]


def _shown(name: str, labels: Mapping[str, str]) -> str:
    return labels.get(name, name)


def _drawn_lines(
    same: Sequence[Row], names: Sequence[str], architectures: Sequence[str], labels: Mapping[str, str]
) -> Iterator[Line]:
    """Yield the line of an arm, and below it the metrics of its students and the published numbers for it."""
    by_name = {row["architecture"]: row for row in same}
    cells = [_cell(by_name[name]) if name in by_name else "" for name in architectures]
    yield Line((*(_shown(or_dash(same[0][key]), labels) for key in names), *cells))
    filler = [""] * (len(names) - 1)
    for metric in whole_names(name for row in same for name in row.get("metrics", {})):
        values = [_metric(by_name.get(name), metric) for name in architectures]
        yield Line((metric, *filler, *values), style="dim", title=metric)
    beside = {name: reference for name, row in by_name.items() if (reference := published_for(row))}
    if beside:
        numbers = [published_cell(beside.get(name)) for name in architectures]
        yield Line(("published", *filler, *numbers), style="dim", title="published")


def by_line(rows: Sequence[Row]) -> list[list[Row]]:
    """Group the rows that differ only in the architecture, in order."""
    lines: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        lines.setdefault(tuple(row[key] for key in LINE), []).append(row)
    return list(lines.values())


def _cell(row: Row) -> str:
    mark = MARKS[row["status"]].sign if row["status"] in MARKS else ""
    if row["mean"] is None:
        return f"{DASH}{mark}"
    spread = spreads(row["std_students"], row["std_distillations"])
    mixed = MIXED if is_mixed(row) else ""
    collapsed = f" ({row['collapsed']} collapsed)" if row["collapsed"] else ""
    real = real_data_mark(row.get("real_data", False))
    return f"{percent(row['mean'])}{spread}{mark}{mixed}{real}{collapsed}"


def _metric(row: Row | None, name: str) -> str:
    summary = row.get("metrics", {}).get(name) if row else None
    if summary is None or summary["mean"] is None:
        return ""
    return significant(summary["mean"]) + spreads(summary["std_students"], summary["std_distillations"], significant)


def is_mixed(row: Row) -> bool:
    """Return whether several versions of the code made the numbers of a row."""
    return int(row.get("code_versions", 1)) > 1


def published_cell(reference: Published | None) -> str:
    """Format a published number as ``28.3±0.5``; None gives an empty text."""
    if reference is None:
        return ""
    return tenths(reference.accuracy) + ("" if reference.std is None else f"±{tenths(reference.std)}")


def _captions(rows: Sequence[Row], notes: Iterable[str]) -> list[str]:
    """Return the captions: what the numbers are, the protocols, marks, copies, sources, notes."""
    split = " and ".join(sorted({row["score_on"] for row in rows}))
    students, distillations = (max((row[key] for row in rows), default=0) for key in ("students", "distillations"))
    counts = f"{counted(students, 'student')} on each of {counted(distillations, 'distillation')}"
    seeds = labelled(", seed ", comma_list(row["seed"] for row in rows))
    return [
        f"accuracy{labelled(' on ', split)} in %, mean{spread_caption(students, distillations)}; {counts}{seeds}",
        *protocol_lines((row["protocol"] for row in rows), (row["device"] for row in rows)),
        *mark_lines({row["status"] for row in rows}),
        *mixed_code_lines(any(map(is_mixed, rows))),
        *real_data_lines(any(row.get("real_data") for row in rows)),
        *collapsed_lines(any(row["collapsed"] for row in rows)),
        *storage_lines(rows),
        *copy_lines((row["dataset"], row["like"]) for row in rows),
        *(choice_line(row, rows) for row in rows if row.get("chosen")),
        *split_lines(rows),
        *_mixes(rows),
        *adapting_lines(rows),
        *published_lines(reference.source for row in rows if (reference := published_for(row))),
        *notes,
    ]


def storage_lines(rows: Sequence[Row]) -> list[str]:
    """Return a caption for each kind of set that does not store ipc plain images of each class, or needs more."""
    varying = [key for key in ("dataset", "ipc") if len({row[key] for row in rows}) > 1]
    lines: dict[str, None] = {}
    for row in rows:
        stored, plain, ipc = row.get("storage_floats"), row.get("plain_floats"), row["ipc"]
        if stored and plain and stored != plain:
            name = " ".join([row["method"], *(describe_value(key, row[key]) for key in varying)])
            share = f"{100 * stored / plain:.3g} % of {counted(ipc, 'plain image')} a class"
            lines[f"storage of {name}: {stored:,} numbers, {share}"] = None
        if bits := row.get("extra_bits"):
            lines[f"{row['evaluator']} stores {bits:,} bits beside each set"] = None
    return list(lines)


def _mixes(rows: Sequence[Row]) -> list[str]:
    """Return a caption for each pool that drew several architectures, with the count of each."""
    drawn = {(row["pool"], _row_name(row, rows)): mix for row in rows if (mix := _mix(row.get("draws") or {}))}
    lines = []
    for pool in dict.fromkeys(pool for pool, _ in drawn):
        mixes = {name: mix for (drawing_pool, name), mix in drawn.items() if drawing_pool == pool}
        if len(set(mixes.values())) == 1:
            lines.append(f"drawn by {pool}: {next(iter(mixes.values()))}")
        else:
            lines += [f"drawn by {pool} in {name}: {mix}" for name, mix in mixes.items()]
    return lines


def adapting_lines(rows: Sequence[Row]) -> list[str]:
    """Return a caption for each row whose pool adapts: the main architecture's probability over time, and its cost.

    Of a pool without a main architecture, the cost alone.
    """
    lines: dict[str, None] = {}
    for row in rows:
        if adapting := row.get("adapting"):
            places = ", ".join(f"{share:.2f} at {place + 1}" for place, share in adapting["main_probability"])
            name = " ".join(part for part in [row["pool"], labelled("in ", _row_name(row, rows))] if part)
            probes, seconds = adapting["probes"], adapting["search_seconds"]
            cost = f"{counted(probes, 'probe')}, {seconds:.0f} s to find" if probes else ""
            if undrawn := adapting.get("undrawn"):
                idle = "came after no draw since the one before, and rewarded what had no part in the gain"
                lines[f"{name}: {undrawn} of {counted(probes, 'probe')} {idle}"] = None
            if places:
                of_main = f"probability of the main architecture by iteration, {name}: {places}"
                lines[f"{of_main}; {cost} it" if cost else of_main] = None
            elif cost:
                lines[f"distributions without a main architecture, {name}: {cost} them"] = None
    return list(lines)


def _mix(draws: Mapping[str, int]) -> str:
    if len(draws) < 2:
        return ""
    ordered = sorted(draws.items(), key=lambda item: -item[1])
    listed, rest = ordered[:_MOST_DRAWN], ordered[_MOST_DRAWN:]
    more = [f"{len(rest)} others {sum(count for _, count in rest)}"] if rest else []
    return ", ".join([*(f"{name} {count}" for name, count in listed), *more])


def _row_name(row: Row, rows: Sequence[Row]) -> str:
    """Name a distillation among those with the same pool."""
    keys = ("dataset", "ipc", "iterations", "method")
    varying = [key for key in keys if len({other[key] for other in rows}) > 1 and row[key] is not None]
    return " ".join(describe_value(key, row[key]) for key in varying)


def choice_line(row: Row, rows: Sequence[Row]) -> str:
    """Describe the choice of a row: the chosen name, and the scores of all candidates."""
    chosen, split = row["chosen"], HoldOut.from_json(row.get("validation"))
    varying = [key for key in LINE if len({other[key] for other in rows}) > 1 and row[key] is not None]
    words = [describe_value(key, row[key]) for key in varying if row[key] != chosen["value"]]
    on = f" on validation ({split})" if split else ""
    on += f"; {optimism(chosen['curve'], chosen['probed'])}" if chosen.get("probed") else ""
    return f"{' '.join([*words, row['architecture']])}: {chosen['value']} chosen from {_curve(chosen)}{on}"


def split_lines(rows: Sequence[Row]) -> list[str]:
    """Return a caption for each data set whose validation split was scored or held out of the distillation."""
    # A dictionary in place of a set keeps the order of the rows.
    lines: dict[str, None] = {}
    for row in rows:
        split = HoldOut.from_json(row.get("hold_out"))
        if split and row["score_on"] == "test":
            lines[f"{row['dataset']}: distilled from fewer images, without the validation split: {split}"] = None
        elif split:
            lines[f"{row['dataset']}: validation is {split}"] = None
    return list(lines)


def _curve(chosen: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {percent(mean)}" for name, mean in chosen["curve"].items())
