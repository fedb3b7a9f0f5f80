"""Tables of the study of trained weights, from its record. Knows nothing about models."""

import json

import records

from experiments.real_weights import report

PARTS = {
    "looks": lambda rows, record: report.looks(rows["attention"]),
    "sinks": lambda rows, record: report.sinks(rows["attention"]),
    "equality": lambda rows, record: report.equality(rows["masking"], rows["batch"]),
    "stability": lambda rows, record: report.stability(rows["stability"]),
    "withdrawal": lambda rows, record: report.withdrawal(rows["withdrawal"], record["layers"]),
}


def study(part: str) -> str:
    """One table of the record, with equal spacing."""
    path = records.RECORDS / "real_weights.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    return f"```text\n{PARTS[part](record['rows'], record)}\n```"
