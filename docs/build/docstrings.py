"""Sections of a strategy's docstring: summary, text, source, differences, attributes.

Knows nothing about methods and pages.
"""

import inspect
import re
from dataclasses import dataclass

SECTION = re.compile(r"^(Source|Differs from the authors' code|Attributes|Raises|Example)\b")
ROLE = re.compile(r":(?:class|meth|mod|func|attr):`([^`]*)`")
ATTRIBUTE = re.compile(r"^    (\w+): (.*)$")


@dataclass(frozen=True)
class Explanation:
    """Docstring of a strategy in parts, as markdown.

    Attributes:
        summary: First sentence.
        body: Paragraphs between the summary and the first section, equations as code blocks.
        source: Paper and code that the strategy follows.
        differs: Differences from the authors' code; empty if the docstring has no such section.
        attributes: Name of a field -> meaning.
    """

    summary: str
    body: str
    source: str
    differs: str
    attributes: dict[str, str]


def explanation(cls: type) -> Explanation:
    """Parts of the docstring of a class."""
    lines = (inspect.getdoc(cls) or "").splitlines()
    parts: dict[str, list[str]] = {"": []}
    name = ""
    for line in lines:
        match = SECTION.match(line)
        if match:
            name = match[1]
            parts[name] = [line[len(name) :]]
        else:
            parts[name].append(line)
    summary, _, body = "\n".join(parts[""]).partition("\n\n")
    return Explanation(
        plain(" ".join(summary.split())),
        plain(_equations(body.strip("\n"))),
        _joined(parts.get("Source", [])),
        _joined(parts.get("Differs from the authors' code", [])),
        _attributes(parts.get("Attributes", [])),
    )


def plain(text: str) -> str:
    """Text without the roles of reStructuredText, and with single backticks for code."""
    text = ROLE.sub(lambda match: f"`{match[1].lstrip('~').rpartition('.')[2]}`", text)
    return re.sub(r"(?<!`)``(?!`)", "`", text)


def _joined(lines: list[str]) -> str:
    text = plain(" ".join(" ".join(lines).split()))
    return text.removeprefix(":").strip()


def _equations(body: str) -> str:
    """Text whose lines with an indent of two or more stand in code blocks."""
    out, inside = [], False
    for line in body.splitlines():
        indented = line.startswith("  ")
        if indented != inside and (line or not inside):
            out += ["", "```text"] if indented else ["```", ""]
            inside = indented
        out.append(line[2:] if indented else line)
    return "\n".join([*out, "```"] if inside else out)


def _attributes(lines: list[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    name = ""
    for line in lines[1:]:
        match = ATTRIBUTE.match(line)
        if match:
            name = match[1]
            texts[name] = match[2]
        elif name and line.strip():
            texts[name] += " " + line.strip()
    return {name: plain(text) for name, text in texts.items()}
