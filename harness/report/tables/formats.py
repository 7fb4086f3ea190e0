"""Output formats of a sheet: terminal, Markdown and LaTeX. All its texts are escaped: they are data, not markup."""

import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import TextIO

from harness.report.tables.comparison_table import Sheet, SheetCell
from harness.report.tables.drawing import Column, Grid, Line, Words, draw
from harness.report.tables.wording import one_line

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "]": "{]}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "{''}", "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}", "*": "{*}", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "–": r"\textendash{}",
    "≠": r"$\neq$", "◊": r"$\diamond$",
}  # fmt: skip
_LATEX_LETTERS = "ßæøåÆØÅ"


def print_sheet(sheet: Sheet, file: TextIO | None = None) -> None:
    """Print a sheet as a table that fits the terminal."""
    file = file or sys.stdout
    file.write(draw(_layout(sheet), file))
    file.flush()


def _layout(sheet: Sheet) -> list[Grid | Words]:
    columns = [
        Column(one_line(column.heading), right=column.number, style="dim" if column.grey else None)
        for column in sheet.columns
    ]
    lines = [
        Line(tuple(map(_terminal_cell, cells)), begins_section=index in sheet.sections)
        for index, cells in enumerate(sheet.lines)
    ]
    names = sum(not column.number for column in sheet.columns)
    beneath = [*(f"({mark}) {meaning}" for mark, meaning in sheet.marks.items()), *sheet.caption]
    grid = Grid(tuple(columns), tuple(lines), heading_columns=names, turned=("of", "value"))
    return [Words(one_line(sheet.title), "bold"), grid, Words("\n".join(one_line(text) for text in beneath))]


def markdown(sheet: Sheet) -> str:
    """Render a sheet as a Markdown table with its title and captions."""
    headings = [escape_markdown(column.heading) for column in sheet.columns]
    rules = ["---:" if column.number else "---" for column in sheet.columns]
    lines = [f"**{escape_markdown(sheet.title)}**", "", _markdown_row(headings), _markdown_row(rules)]
    lines += [_markdown_row([_markdown_cell(cell) for cell in cells]) for cells in sheet.lines]
    lines += ["", *(f"* <sup>{mark}</sup> {escape_markdown(meaning)}" for mark, meaning in sheet.marks.items())]
    lines += [f"* {escape_markdown(text)}" for text in sheet.caption]
    return "\n".join(lines) + "\n"


def latex(sheet: Sheet) -> str:
    r"""Render a sheet as a LaTeX ``table`` with booktabs rules; its first line names the packages that it needs."""
    columns = "".join("r" if column.number else "l" for column in sheet.columns)
    body = [f"\\caption{{{escape_latex(sheet.title)}}}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    body.append(_latex_row([_gray(escape_latex(column.heading), column.grey) for column in sheet.columns]))
    body.append("\\midrule")
    for index, cells in enumerate(sheet.lines):
        if index in sheet.sections:
            body.append("\\midrule")
        body.append(_latex_row([_latex_cell(cell) for cell in cells]))
    body += ["\\bottomrule", "\\end{tabular}"]
    beneath = [f"\\textsuperscript{{{mark}}} {escape_latex(meaning)}" for mark, meaning in sheet.marks.items()]
    beneath += [escape_latex(text) for text in sheet.caption]
    notes = ["\\par\\medskip\\raggedright\\footnotesize", *(f"{text}\\par" for text in beneath)]
    head = ["% \\usepackage{booktabs,xcolor,textcomp}", "\\begin{table}", "\\centering", "\\small"]
    return "\n".join([*head, *body, *notes, "\\end{table}"]) + "\n"


def escape_latex(text: str) -> str:
    """Escape a text for LaTeX; letters that pdflatex does not know become their code points."""
    # Two hyphens in a row would become a dash.
    return re.sub("-(?=-)", "-{}", "".join(_latex_letters(one_line(text))))


def _latex_letters(text: str) -> Iterator[str]:
    for letter in text:
        if letter in _LATEX:
            yield _LATEX[letter]
        elif letter.isascii() or letter in _LATEX_LETTERS or _is_accented(letter):
            yield letter
        else:
            yield f"{{[}}U+{ord(letter):04X}{{]}}"


def _is_accented(letter: str) -> bool:
    return "À" <= letter <= "ÿ" and unicodedata.decomposition(letter) != ""


def _latex_cell(cell: SheetCell) -> str:
    marks = f"\\textsuperscript{{{','.join(cell.marks)}}}" if cell.marks else ""
    return _gray(escape_latex(cell.text) + marks, cell.grey)


def _gray(text: str, grey: bool) -> str:
    return f"\\textcolor{{gray}}{{{text}}}" if grey else text


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: SheetCell) -> str:
    marks = f"<sup>{','.join(cell.marks)}</sup>" if cell.marks else ""
    text = escape_markdown(cell.text) + marks
    return f"*{text}*" if cell.grey else text


def escape_markdown(text: str) -> str:
    """Escape a text for Markdown."""
    escaped = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$!])", r"\\\1", escaped)


def _terminal_cell(cell: SheetCell) -> str:
    return one_line(cell.text) + (f" ({','.join(cell.marks)})" if cell.marks else "")
