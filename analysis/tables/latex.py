r"""A sheet as a LaTeX table; it needs the packages booktabs and makecell.

Whatever a cell holds is text: every special character is escaped. Knows nothing about numbers.
"""

from analysis.tables.sheets import COMMAND, NAMES, Sheet

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "≠": r"$\neq$", "Δ": r"$\Delta$", "−": "$-$", "–": "--", "·": r"$\cdot$", "×": r"$\times$",
    "τ": r"$\tau$", "γ": r"$\gamma$", "α": r"$\alpha$", "<": r"$<$", ">": r"$>$", "|": r"$|$",
}  # fmt: skip


def to_latex(made: Sheet) -> str:
    """One table environment, its title as the caption, its notes below as small print."""
    columns = "".join("l" if head in NAMES else "r" for head in made.heads)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(made.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row([head.replace(", ", ",\n") for head in made.heads]),
        r"\midrule",
    ]
    for number, row in enumerate(made.rows):
        if number in made.breaks:
            lines.append(r"\midrule")
        lines.append(_row(row))
    lines += [r"\bottomrule", r"\end{tabular}"]
    if made.notes:
        notes = (
            rf"\texttt{{{escape(note)}}}" if note.startswith(COMMAND) else escape(note)
            for note in made.notes
        )
        lines += [r"\par\footnotesize\raggedright", *(rf"{note}\par" for note in notes)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escape(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return " & ".join(map(_cell, cells)) + r" \\"


def _cell(text: str) -> str:
    # a line that begins with [ would be read as an option of the \\ before it
    lines = [
        f"{{}}{line}" if line.startswith("[") else line for line in map(escape, text.split("\n"))
    ]
    stacked = r" \\ ".join(lines)
    return stacked if len(lines) == 1 else rf"\makecell{{{stacked}}}"
