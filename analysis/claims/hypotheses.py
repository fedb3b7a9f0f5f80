"""The claims to be judged, read from analysis/reference/hypotheses.yaml and checked.

Knows nothing about runs: an arm is described, not found.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from analysis.statistics.noninferiority import check_margin

HYPOTHESES = Path(__file__).parents[1] / "reference" / "hypotheses.yaml"
Kind = Literal["superiority", "non-inferiority", "equivalence", "all"]
CONTROLS = ("schedule", "flat", "grid")
FIELDS = {
    "id",
    "says",
    "source",
    "kind",
    "margin",
    "ours",
    "theirs",
    "all",
    "each",
    "budgets",
    "run",
}
ARM = {"method", "budget", "control", "config"}


@dataclass(frozen=True)
class ArmSpec:
    """A description of runs.

    Attributes:
        method: Its name.
        budget: Tokens asked for; None: a run without a budget.
        control: Which control of the method is meant: ``schedule`` (random tokens on its own
            schedule), ``flat`` (random tokens from the input on) or ``grid`` (an even grid); None
            for the method itself.
        config: Entries of the run's config, dotted: value.
    """

    method: str
    budget: float | None = None
    control: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        budget = "" if self.budget is None else f" at {self.budget:g}"
        asked = [f"{path}={value}" for path, value in self.config.items()]
        control = "" if self.control is None else f", its {self.control} control"
        return f"{self.method}{budget}{' with ' + ', '.join(asked) if asked else ''}{control}"


@dataclass(frozen=True)
class Hypothesis:
    """One sentence about two arms, or about other claims.

    Attributes:
        id: Its name, ``@`` and what it was made for.
        says: The sentence.
        source: A paper and place in it, or ``ours``.
        kind: ours above theirs; no worse by the margin; within it both ways; or all of ``parts``.
        ours: The first arm.
        theirs: The second.
        margin: In points (hundredths of a score in [0, 1]), where the kind has one.
        matched: Whether both must have the same executed average.
        parts: Ids of the claims that must all hold.
        run: The command that measures it.
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


def hypotheses(path: Path = HYPOTHESES) -> list[Hypothesis]:
    """All claims of a file, one per value in their ``each``, in its order.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If a claim is not as the file's head says.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no claims {path}")
    entries = yaml.safe_load(path.read_text())
    if not isinstance(entries, Sequence) or not all(isinstance(e, Mapping) for e in entries):
        raise ValueError(f"{path}: expected a list of claims")
    claims = [claim for entry in entries for claim in _claims(entry, path)]
    names = [claim.id for claim in claims]
    twice = {name for name in names if names.count(name) > 1}
    unknown = {part for claim in claims for part in claim.parts} - set(names)
    if twice or unknown:
        raise ValueError(f"{path}: claims named twice {sorted(twice)}, unknown {sorted(unknown)}")
    return claims


def _claims(entry: Mapping[str, Any], path: Path) -> list[Hypothesis]:
    where = f"{path}: claim {entry.get('id')!r}"
    needed = {"id", "says", "source", "kind", "run"}
    pairs = {"all"} if entry.get("kind") == "all" else {"ours", "theirs"}
    if lacking := (needed | pairs) - set(entry):
        raise ValueError(f"{where} lacks {sorted(lacking)}")
    if odd := set(entry) - FIELDS:
        raise ValueError(f"{where}: expected fields of {sorted(FIELDS)}, got {sorted(odd)}")
    if entry["kind"] not in get_args(Kind):
        raise ValueError(f"{where}: kind must be one of {get_args(Kind)}, got {entry['kind']!r}")
    if entry.get("budgets", "matched") not in ("matched", "own"):
        raise ValueError(f"{where}: budgets must be matched or own, got {entry['budgets']!r}")
    margin = entry.get("margin")
    if entry["kind"] in ("non-inferiority", "equivalence"):
        check_margin(margin)
    elif margin is not None:
        raise ValueError(f"{where}: {entry['kind']} has no margin, got {margin}")
    each = entry.get("each", {})
    if odd := set(each) - {"method", "budget"}:
        raise ValueError(f"{where}: each must name method or budget, got {sorted(odd)}")
    made = [dict(zip(each, values, strict=True)) for values in itertools.product(*each.values())]
    return [_claim(entry, values, margin, where) for values in made]


def _claim(
    entry: Mapping[str, Any], values: Mapping[str, Any], margin: float | None, where: str
) -> Hypothesis:
    suffix = "".join(f"@{value}" for value in values.values())
    at = f" at {values['budget']} tokens" if "budget" in values else ""
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
        run=str(entry["run"]).format(**values),
    )


def _arm(told: Mapping[str, Any], values: Mapping[str, Any], where: str) -> ArmSpec:
    asked = {**values, **told}
    if odd := set(asked) - ARM:
        raise ValueError(f"{where}: an arm has {sorted(ARM)}, got {sorted(odd)}")
    if "method" not in asked:
        raise ValueError(f"{where}: an arm lacks its method: {dict(told)}")
    if asked.get("control") not in (None, *CONTROLS):
        raise ValueError(f"{where}: control must be one of {CONTROLS}, got {asked['control']!r}")
    return ArmSpec(**asked)
