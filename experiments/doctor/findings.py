"""Findings of the doctor, and the page and the record made of them. Knows no model."""

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.cli.errors import KNOWN, message

Level = Literal["ok", "note", "warning", "wrong", "left out"]
MARKS: Mapping[str, str] = {
    "ok": "ok", "note": "note", "warning": "WARN", "wrong": "WRONG", "left out": "left out",
}  # fmt: skip
WIDTH = 110  # columns of the page


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        check: Name of the check.
        level: ``wrong`` and ``warning`` need the user's attention.
        text: Sentences about it.
        facts: Numbers and names behind them, for the record.
    """

    check: str
    level: Level
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class Broken(Exception):
    """A check that raised; its finding says why, and checks that need its result are left out."""


@dataclass
class Examination:
    """Findings in the order of the checks.

    Attributes:
        title: Model, benchmark and inputs.
        findings: Findings so far.
        on_finding: Called with each new finding.
    """

    title: str
    findings: list[Finding] = field(default_factory=list)
    on_finding: Callable[[Finding], None] = lambda finding: None

    def add(self, *findings: Finding) -> None:
        """Add findings."""
        for finding in findings:
            self.findings.append(finding)
            self.on_finding(finding)

    def run(self, check: str, work: Callable[[], Any]) -> Any:
        """Run a check and return its result; an error inside becomes a finding.

        Args:
            check: Name of the check.
            work: Check; a finding or a list of findings that it returns is added.

        Raises:
            Broken: If the check raised an error.
        """
        try:
            result = work()
        except KNOWN as error:
            self.add(Finding(check, "wrong", message(error), {"error": type(error).__name__}))
            raise Broken(check) from error
        # A boundary: model code and processors of any checkpoint raise errors of any type.
        except Exception as error:
            reason = " ".join(str(error).split()) or "no message"
            text = f"{type(error).__name__}: {reason}"
            self.add(Finding(check, "wrong", text, {"error": type(error).__name__}))
            raise Broken(check) from error
        findings = result if isinstance(result, list) else [result]
        self.add(*(finding for finding in findings if isinstance(finding, Finding)))
        return result

    def leave_out(self, checks: Sequence[str], reason: str) -> None:
        """Add findings for checks that could not be made."""
        self.add(*(Finding(check, "left out", reason) for check in checks))

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each level that needs attention."""
        levels = [finding.level for finding in self.findings]
        return {level: levels.count(level) for level in ("wrong", "warning")}

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong; warnings and notes do not count."""
        return not self.counts["wrong"]

    def page(self) -> str:
        """Text of all findings, one page."""
        lines = [self.title, "=" * len(self.title)]
        for finding in self.findings:
            lines += finding_lines(finding)
        return "\n".join([*lines, "", self.verdict()]) + "\n"

    def verdict(self) -> str:
        """Last line of the page."""
        wrong, warnings = self.counts["wrong"], self.counts["warning"]
        if wrong:
            return f"{wrong} wrong, {warnings} to look at: do not start large runs yet"
        return f"nothing wrong, {warnings} to look at" if warnings else "nothing wrong"

    def save(self, folder: Path) -> None:
        """Write ``doctor.txt`` and ``doctor.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "doctor.txt").write_text(self.page(), encoding="utf-8")
        record = {
            "title": self.title,
            "healthy": self.healthy,
            "findings": [asdict(finding) for finding in self.findings],
        }
        text = json.dumps(record, indent=1, default=str)
        (folder / "doctor.json").write_text(text + "\n", encoding="utf-8")


def finding_lines(finding: Finding) -> list[str]:
    """Lines of a finding: its mark, the name of the check, and its text beside them."""
    head = f"{MARKS[finding.level]:>8}  {finding.check:<12} "
    lines = []
    for paragraph in finding.text.split("\n"):
        lines += textwrap.wrap(paragraph, WIDTH - len(head)) or [""]
    indents = [head, *[" " * len(head)] * (len(lines) - 1)]
    return [f"{indent}{line}".rstrip() for indent, line in zip(indents, lines, strict=True)]
