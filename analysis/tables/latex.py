r"""Render a sheet as a LaTeX table, which needs the packages booktabs and makecell.

Every cell is text: all special characters are escaped. Knows nothing about numbers.
"""

from analysis.tables.sheets import COMMAND, NAMES, Sheet

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "≠": r"$\neq$", "Δ": r"$\Delta$", "−": "$-$", "–": "--", "·": r"$\cdot$", "×": r"$\times$",
    "τ": r"$\tau$", "γ": r"$\gamma$", "α": r"$\alpha$", "<": r"$<$", ">": r"$>$", "|": r"$|$",
}  # fmt: skip


def to_latex(sheet: Sheet) -> str:
    """Make a table environment with the title as caption and the notes in small print below."""
    columns = "".join("l" if head in NAMES else "r" for head in sheet.heads)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(sheet.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row([head.replace(", ", ",\n") for head in sheet.heads]),
        r"\midrule",
    ]
    for number, row in enumerate(sheet.rows):
        if number in sheet.breaks:
            lines.append(r"\midrule")
        lines.append(_row(row))
    lines += [r"\bottomrule", r"\end{tabular}"]
    if sheet.notes:
        notes = (
            rf"\texttt{{{escape(note)}}}" if note.startswith(COMMAND) else escape(note)
            for note in sheet.notes
        )
        lines += [r"\par\footnotesize\raggedright", *(rf"{note}\par" for note in notes)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escape(text: str) -> str:
    """Escape text so that LaTeX prints it unchanged."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return " & ".join(map(_cell, cells)) + r" \\"


def _cell(text: str) -> str:
    # LaTeX would read a line that starts with [ as an option of the \\ before it.
    lines = [
        f"{{}}{line}" if line.startswith("[") else line for line in map(escape, text.split("\n"))
    ]
    stacked = r" \\ ".join(lines)
    return stacked if len(lines) == 1 else rf"\makecell{{{stacked}}}"
