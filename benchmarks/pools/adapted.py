"""How pools that adapt did so, for the page of pools: the section of the report's page as Markdown."""

import base64
import itertools

from one_screen import markdown_table

from harness.report.page.drawing.pictures import Palette
from harness.report.page.history import trajectories_of
from harness.report.page.pools.adapting import adapting_section


def adapted(sets, scores, output, stem):
    """Return the pictures and the table of pools that adapt as Markdown; nothing if none does.

    Args:
        sets: all sets of the store.
        scores: those of the campaign, which name its methods and pools.
        output: the page's folder, in which the pictures are written.
        stem: the beginning of their names.
    """
    ours = {(score.method, score.pool) for score in scores}
    trajectories = [record for record in trajectories_of(sets) if (record.method, record.pool) in ours]
    palette = Palette(sorted({record.pool or "" for record in trajectories}), sorted({method for method, _ in ours}))
    section = adapting_section(trajectories, palette)
    if section is None:
        return []
    parts = ["### How the pools adapted\n", *(f"{text}\n" for text in section.intro)]
    number = itertools.count()
    for part in section.parts:
        if part.pictures:
            parts.append(f"**{part.title}**\n")
        for picture in part.pictures:
            path = stem.with_name(f"{stem.name}-adapted-{next(number)}.svg")
            (output / path).write_bytes(base64.b64decode(picture.source.partition(",")[2]))
            parts.append(f"![{picture.alt}]({path})\n")
    for table in (table for part in section.parts for table in part.tables):
        rows = [
            [group.title, f"`{row.head}`", *(entry.text for entry in row.cells)]
            for group in table.groups
            for row in group.rows
        ]
        parts.append(markdown_table(["", *(column.text for column in table.columns)], rows))
    return parts
