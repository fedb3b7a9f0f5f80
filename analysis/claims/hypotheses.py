"""Claims to be judged, read from analysis/reference/hypotheses.yaml and checked.

Knows nothing about runs: an arm only describes them.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from analysis.statistics.noninferiority import check_margin
from mustdrop.budget import Budget

HYPOTHESES = Path(__file__).parents[1] / "reference" / "hypotheses.yaml"
Kind = Literal["superiority", "non-inferiority", "equivalence", "all"]
CONTROLS = ("schedule", "flat", "grid")
Cost = Literal["seconds", "cached tokens", "operations"]
JudgeScore = Literal["judge_accuracy", "judge_score"]
FIELDS = {
    "id", "says", "source", "kind", "margin", "ours", "theirs", "all", "each", "budgets", "saves",
    "score", "benchmarks", "average", "model", "run",
}  # fmt: skip
ARM = {"method", "budget", "control", "config"}


@dataclass(frozen=True)
class DepthFormula:
    """Layer at a relative depth, ``${at_depth:<layer>,<depth>}`` as in the presets.

    Attributes:
        layer: Layer of a decoder with ``depth`` layers.
        depth: Number of layers.
    """

    layer: int
    depth: int

    def __str__(self) -> str:
        return f"${{at_depth:{self.layer},{self.depth}}}"


@dataclass(frozen=True)
class ArmSpec:
    """Description of the runs on one side of a claim.

    Attributes:
        budget: Budget requested; None for a run without a budget.
        control: Control of the method: ``schedule`` (random tokens on the method's schedule),
            ``flat`` (random tokens from the input on) or ``grid`` (an even grid); None for the
            method itself.
        config: Values that the run's config must have, by dotted path; a layer may be a formula.
    """

    method: str
    budget: Budget | None = None
    control: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        budget = "" if self.budget is None else f" at {self.budget}".removesuffix(" tokens")
        settings = ", ".join(f"{path}={value}" for path, value in self.config.items())
        control = "" if self.control is None else f", its {self.control} control"
        return f"{self.method}{budget}{f' with {settings}' if settings else ''}{control}"


@dataclass(frozen=True)
class Saving:
    """Cost that the first arm saves of the second arm's.

    Attributes:
        cost: ``seconds`` per sample, ``cached tokens`` (vision tokens in the cache while decoding)
            or ``operations`` (of the vision tokens in the prefill).
        percent: Share that is saved, in percent.
    """

    cost: Cost
    percent: float


@dataclass(frozen=True)
class Hypothesis:
    """Statement about two arms, or about several other claims.

    Attributes:
        id: Unique name, with ``@`` and a value for each entry of ``each``.
        says: Statement in one sentence.
        source: Paper and section or table, or ``ours``.
        kind: Relation: ours is better; no worse than the margin; within the margin both ways; or
            all of ``parts`` hold.
        ours: First arm.
        theirs: Second arm.
        margin: Margin in points (hundredths of a score in [0, 1]), if the kind has one.
        matched: Whether both arms must have the same executed average.
        parts: Ids of the claims that must all hold.
        run: Command that measures the claim.
        saves: Cost that the claim is about, in place of scores; None for a claim about scores.
        score: Score of a judge that the claim is about; None: main score of each benchmark.
        benchmarks: Benchmarks that the claim is about; empty: any.
        averaged: Whether the claim is about the mean over the benchmarks, not about each.
        model: Model of the command if no run is given; None: the embedded one.
    """

    id: str
    says: str
    source: str
    kind: Kind
    ours: ArmSpec | None
    theirs: ArmSpec | None
    margin: float | None
    matched: bool
    parts: tuple[str, ...]
    run: str
    saves: Saving | None = None
    score: JudgeScore | None = None
    benchmarks: tuple[str, ...] = ()
    averaged: bool = False
    model: str | None = None


def hypotheses(path: Path = HYPOTHESES) -> list[Hypothesis]:
    """Read all claims of a file in its order, one per value of their ``each``.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If a claim does not have the form that the head of the file describes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no claims file {path}")
    entries = yaml.safe_load(path.read_text())
    if not isinstance(entries, Sequence) or not all(
        isinstance(entry, Mapping) for entry in entries
    ):
        raise ValueError(f"{path}: expected a list of claims")
    claims = [claim for entry in entries for claim in _claims(entry, path)]
    names = [claim.id for claim in claims]
    repeated = {name for name in names if names.count(name) > 1}
    unknown = {part for claim in claims for part in claim.parts} - set(names)
    if repeated or unknown:
        raise ValueError(
            f"{path}: repeated claim ids {sorted(repeated)}, unknown claim ids {sorted(unknown)}"
        )
    return claims


def _claims(entry: Mapping[str, Any], path: Path) -> list[Hypothesis]:
    where = f"{path}: claim {entry.get('id')!r}"
    needed = {"id", "says", "source", "kind", "run"}
    pairs = {"all"} if entry.get("kind") == "all" else {"ours", "theirs"}
    if lacking := (needed | pairs) - set(entry):
        raise ValueError(f"{where} lacks {sorted(lacking)}")
    if unknown := set(entry) - FIELDS:
        raise ValueError(f"{where}: expected fields of {sorted(FIELDS)}, got {sorted(unknown)}")
    if entry["kind"] not in get_args(Kind):
        raise ValueError(f"{where}: kind must be one of {get_args(Kind)}, got {entry['kind']!r}")
    if entry.get("budgets", "matched") not in ("matched", "own"):
        raise ValueError(f"{where}: budgets must be matched or own, got {entry['budgets']!r}")
    margin = entry.get("margin")
    if entry["kind"] in ("non-inferiority", "equivalence"):
        check_margin(margin)
    elif margin is not None:
        raise ValueError(f"{where}: kind {entry['kind']} has no margin, got {margin}")
    _saving(entry, where)
    _check_scope(entry, where)
    axes = entry.get("each", {})
    if unknown := set(axes) - {"method", "budget"}:
        raise ValueError(f"{where}: each must name method or budget, got {sorted(unknown)}")
    combinations = itertools.product(*axes.values())
    return [
        _claim(entry, dict(zip(axes, values, strict=True)), margin, where)
        for values in combinations
    ]


def _claim(
    entry: Mapping[str, Any], values: Mapping[str, Any], margin: float | None, where: str
) -> Hypothesis:
    suffix = "".join(f"@{value}" for value in values.values())
    budget = Budget.parse(values.get("budget"))
    at = "" if budget is None else f" at {budget if budget.share is None else values['budget']}"
    at += "" if budget is None or budget.share is None else " of the tokens"
    says = str(entry["says"]).format(**values)
    return Hypothesis(
        id=f"{entry['id']}{suffix}",
        says=f"{says}{at}",
        source=entry["source"],
        kind=entry["kind"],
        ours=_arm(entry["ours"], values, where) if "ours" in entry else None,
        theirs=_arm(entry["theirs"], values, where) if "theirs" in entry else None,
        margin=margin,
        matched=entry.get("budgets", "matched") == "matched",
        parts=tuple(f"{part}{suffix}" for part in entry.get("all", ())),
        run=str(entry["run"]).format(**{**values, "budget": _typed(values.get("budget"))}),
        saves=_saving(entry, where),
        score=entry.get("score"),
        benchmarks=tuple(entry.get("benchmarks", ())),
        averaged=entry.get("average", False),
        model=entry.get("model"),
    )


def _typed(budget: object) -> str:
    """Budget as a command line has it: ``t192`` or ``320/2880``."""
    return str(budget) if isinstance(budget, str) else f"t{budget}"


def _saving(entry: Mapping[str, Any], where: str) -> Saving | None:
    given = entry.get("saves")
    if given is None:
        return None
    costs = get_args(Cost)
    if not isinstance(given, Mapping) or set(given) != {"cost", "percent"}:
        raise ValueError(f"{where}: saves must have cost and percent, got {given!r}")
    if given["cost"] not in costs or not 0 < given["percent"] < 100:
        raise ValueError(
            f"{where}: cost must be one of {costs} and percent in (0, 100), got {dict(given)}"
        )
    return Saving(**given)


def _check_scope(entry: Mapping[str, Any], where: str) -> None:
    """Check the score and the benchmarks of a claim."""
    scores = get_args(JudgeScore)
    if entry.get("score") not in (None, *scores):
        raise ValueError(f"{where}: score must be one of {scores}, got {entry['score']!r}")
    if entry.get("score") and entry.get("saves"):
        raise ValueError(f"{where}: a claim has score or saves, not both")
    arms = (entry.get("ours") or {}, entry.get("theirs") or {})
    if entry.get("score") and any("control" in arm for arm in arms):
        raise ValueError(f"{where}: answers of a control are not judged, so score needs whole runs")
    benchmarks = entry.get("benchmarks", [])
    if not isinstance(benchmarks, list) or not all(isinstance(name, str) for name in benchmarks):
        raise ValueError(f"{where}: benchmarks must be a list of names, got {benchmarks!r}")
    if not isinstance(entry.get("average", False), bool):
        raise ValueError(f"{where}: average must be true or false, got {entry['average']!r}")
    if entry.get("average") and len(benchmarks) < 2:
        raise ValueError(f"{where}: average needs two or more benchmarks, got {benchmarks}")


def _arm(entry: Mapping[str, Any], values: Mapping[str, Any], where: str) -> ArmSpec:
    fields = {**values, **entry}
    if unknown := set(fields) - ARM:
        raise ValueError(f"{where}: an arm has {sorted(ARM)}, got {sorted(unknown)}")
    if "method" not in fields:
        raise ValueError(f"{where}: an arm lacks its method: {dict(entry)}")
    if fields.get("control") not in (None, *CONTROLS):
        raise ValueError(f"{where}: control must be one of {CONTROLS}, got {fields['control']!r}")
    config = {path: _formula(value) for path, value in fields.get("config", {}).items()}
    return ArmSpec(**{**fields, "budget": Budget.parse(fields.get("budget")), "config": config})


def _formula(value: Any) -> Any:
    match = re.fullmatch(r"\$\{at_depth:(\d+),(\d+)\}", str(value))
    return DepthFormula(int(match[1]), int(match[2])) if match else value
