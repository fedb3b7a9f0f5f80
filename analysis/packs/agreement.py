"""Compares what must be equal for runs to stand in one leaderboard: inputs, code and budgets.

Runs of one model and one benchmark are compared. Hardware and the version of mustdrop may differ,
and so may modules that only one of two runs imports. Reads no file.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from analysis.packs.shared_runs import SharedRun
from mustdrop.runs.key import deciding_entries

# Columns of the samples that the inputs decide, with their names in messages.
INPUTS = {
    "question": "question", "target": "target", "image": "picture",
    "prompt_tokens": "number of prompt tokens",
}  # fmt: skip
SAMPLES, CONFIG = "samples", "config."
NOT_SET = "not set"
LONGEST = 60  # characters of a value in a message
Group = tuple[str, str, str]


def grouped(runs: Sequence[SharedRun]) -> dict[Group, list[SharedRun]]:
    """Runs by model, benchmark and image control, which those of one leaderboard share; sorted."""
    groups: dict[Group, list[SharedRun]] = {}
    for run in runs:
        name = run.cell["model"], run.cell["benchmark"], run.cell.image or ""
        groups.setdefault(name, []).append(run)
    return dict(sorted(groups.items()))


def disagreements(runs: Sequence[SharedRun]) -> dict[str, str]:
    """Reason for each origin whose runs do not agree with those of most origins; empty if all do.

    Where as many origins have one value as another, that of the first run counts.
    """
    reasons: dict[str, str] = {}
    more: Counter[str] = Counter()
    for (model, benchmark, _), members in grouped(runs).items():
        for run, usual, field, values in _differences(members):
            if run.origin in reasons:
                more[run.origin] += 1
                continue
            reasons[run.origin] = (
                f"{run.title}: {model} x {benchmark}: {field} is {values[0]}, in {usual.title} it "
                f"is {values[1]}"
            )
    return {
        origin: f"{reason} (differences in all: {more[origin] + 1})" if more[origin] else reason
        for origin, reason in reasons.items()
    }


def _differences(
    runs: Sequence[SharedRun],
) -> Iterator[tuple[SharedRun, SharedRun, str, tuple[str, str]]]:
    """Each field in which an origin differs: its run, a usual run, the field and both values."""
    facts = [_facts(run) for run in runs]
    for field in dict.fromkeys(field for fact in facts for field in fact):
        holders: dict[str, list[SharedRun]] = {}
        for run, fact in zip(runs, facts, strict=True):
            value = fact.get(field, NOT_SET if field.startswith(CONFIG) else None)
            if value is not None:
                holders.setdefault(value, []).append(run)
        # max returns the first of several values with as many origins
        usual = max(holders, key=lambda value: len({run.origin for run in holders[value]}))
        for value, others in holders.items():
            if value == usual:
                continue
            for run in {run.origin: run for run in reversed(others)}.values():
                text = _described(field, run, holders[usual][0], (_short(value), _short(usual)))
                if text is not None:
                    yield run, holders[usual][0], *text


def _facts(run: SharedRun) -> dict[str, str]:
    """Values that must be equal, by their names in messages; for samples, hashes."""
    cell = run.cell
    config = deciding_entries(cell["config"])
    facts = {
        f"{CONFIG}{path}": value
        for part in ("model", "benchmark")
        for path, value in _flat(part, config[part])
    }
    # the batch decides an answer only where arithmetic rounds
    if config["model"].get("dtype") != "float32":
        facts[f"{CONFIG}batch_size"] = _text(config.get("batch_size"))
    facts["metric"] = cell["metric"]
    facts[f"budget {cell['budget']}"] = _text(config.get("budget"))
    if cell.metric is not None:
        facts[SAMPLES] = _hash(list(cell.samples.index))
        facts |= {column: _hash(cell.samples[column].tolist()) for column in INPUTS}
    for part, noun in (("inputs", "input"), ("files", "code"), ("versions", "version of")):
        for name, value in run.code.get(part, {}).items():
            # 2.13.0+cpu and 2.13.0+cu128 are the same torch on other hardware
            facts[f"{noun} {name}"] = value.partition("+")[0] if part == "versions" else value
    return facts


def _described(
    field: str, run: SharedRun, usual: SharedRun, values: tuple[str, str]
) -> tuple[str, tuple[str, str]] | None:
    """Field and both values in words; None if all samples that both runs have are equal in it."""
    ours, theirs = run.cell.samples, usual.cell.samples
    if field == SAMPLES:
        if len(ours) != len(theirs):
            return "number of samples", (str(len(ours)), str(len(theirs)))
        task, doc = theirs.index.difference(ours.index)[0]
        return f"sample {doc} of {task}", ("missing", "there")
    if field not in INPUTS:
        return field, values
    for name in theirs.index.intersection(ours.index):
        first, second = (_text(samples.at[name, field]) for samples in (ours, theirs))
        if first != second:
            task, doc = name
            return f"{INPUTS[field]} of sample {doc} of {task}", (_short(first), _short(second))
    return None


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Dotted names and texts of all values in a config."""
    if isinstance(value, Mapping) and value:
        for name, entry in value.items():
            yield from _flat(f"{path}.{name}", entry)
    else:
        yield path, _text(value)


def _text(value: Any) -> str:
    plain = value.item() if isinstance(value, np.generic) else value
    return json.dumps(plain, sort_keys=True, default=str)


def _hash(values: Sequence[Any]) -> str:
    return hashlib.sha256(_text(values).encode()).hexdigest()


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
