"""Claims about time, judged on profiles (efficiency.json).

Ratios are of times within a round of a profile. Two methods are compared through vanilla, which
both of their profiles measure in the same rounds. A claim holds if the whole interval of the
measured percentage reaches the claimed one, and fails if no part of it does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import nan
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from analysis.statistics.medians import median_interval
from analysis.statistics.pairs import LEVEL
from analysis.tables.sheets import Sheet, number, span

TIME_CLAIMS = Path(__file__).parents[1] / "reference" / "time_claims.yaml"
VANILLA = "vanilla"
NEAR = 0.02  # relative difference of two shares of tokens that count as one
NO_GPU = "not measured on a GPU here"
MEASURES = ("ttft_ms", "e2e_")
Cell = tuple[Mapping[str, Any], Mapping[str, Any]]  # a profile and one of its batches


@dataclass(frozen=True)
class TimeClaim:
    """Statement that one method takes less time than another.

    Attributes:
        id: Unique name.
        says: Statement in one sentence.
        source: Paper and section.
        faster: Method that is faster, if the claim holds.
        slower: Method that is slower; ``vanilla`` for the plain model.
        of: Method whose time the percentage is a share of.
        percent: Difference of the times in percent.
        share: Share of the vision tokens that the methods execute on average.
        run: Command that measures the claim.
    """

    id: str
    says: str
    source: str
    faster: str
    slower: str
    of: Literal["faster", "slower"]
    percent: float
    share: float
    run: str

    def measured(self, ratio: float) -> float:
        """Percentage that follows from the time of the faster over that of the slower method."""
        return 100 * (1 - ratio) if self.of == "slower" else 100 * (1 / ratio - 1)


def time_claims(path: Path = TIME_CLAIMS) -> list[TimeClaim]:
    """Read the claims of a file.

    Raises:
        ValueError: If an entry has other fields than a claim.
    """
    fields = set(TimeClaim.__annotations__)
    claims = []
    for entry in yaml.safe_load(path.read_text()):
        if set(entry) != fields or entry["of"] not in ("faster", "slower"):
            raise ValueError(
                f"{path}: claim {entry.get('id')!r}: expected the fields {sorted(fields)}, with of "
                f"faster or slower, got {sorted(entry)}"
            )
        claims.append(TimeClaim(**entry))
    return claims


def judge_times(
    profiles: Sequence[Mapping[str, Any]], claims: Sequence[TimeClaim] | None = None
) -> pd.DataFrame:
    """Judge the claims on each batch of the profiles, for the first token and for whole answers.

    Args:
        profiles: Result of :func:`analysis.records.profiles.load_profiles`.
        claims: Claims to judge; None: those of the packaged file.

    Returns:
        One row per claim, batch and answer: claim, says, claimed percent; verdict; percent, low and
        high; rounds; model, device, dtype, weights, vision_tokens, batch, new_tokens (1: the first
        token), and note. A claim without a profile has one row, whose note is the command.
    """
    rows = []
    for claim in time_claims() if claims is None else claims:
        judged = [
            row
            for faster, slower in _pairs(profiles, claim)
            for row in _judged(claim, faster, slower)
        ]
        rows += judged or [_row(claim, "not measured", note=claim.run)]
    return pd.DataFrame(rows)


def _pairs(
    profiles: Sequence[Mapping[str, Any]], claim: TimeClaim
) -> Iterator[tuple[Cell, Cell | None]]:
    """Batches of both methods that can be compared; None for vanilla, which each profile has."""
    faster = _cells(profiles, claim.faster, claim.share)
    if claim.slower == VANILLA:
        yield from ((cell, None) for cell in faster)
        return
    for first, second in product(faster, _cells(profiles, claim.slower, claim.share)):
        if _setting(first) == _setting(second):
            yield first, second


def _cells(profiles: Sequence[Mapping[str, Any]], method: str, share: float) -> list[Cell]:
    """Batches in which a method executes this share of the vision tokens."""
    cells = [
        (profile, cell)
        for profile in profiles
        if profile["method"] == method
        for cell in profile["cells"]
        if "method" in cell.get("summary", {})
    ]
    return [(profile, cell) for profile, cell in cells if abs(_share(cell) / share - 1) <= NEAR]


def _share(cell: Mapping[str, Any]) -> float:
    return cell["arms"]["method"]["facts"]["executed_average"] / cell["vision_tokens"]


def _setting(measured: Cell) -> tuple[Any, ...]:
    """What two profiles must share for their times to be compared."""
    profile, cell = measured
    settings = {name: value for name, value in profile["settings"].items() if name != "counts"}
    where = (profile["model"], profile["hardware"]["name"])
    return *where, settings, cell["vision_tokens"], cell["batch"]


def _judged(claim: TimeClaim, faster: Cell, slower: Cell | None) -> Iterator[dict[str, Any]]:
    """Rows of the first token and of each answer that was measured."""
    profile, cell = faster
    for key in cell["arms"]["method"]["rounds"]:
        if not key.startswith(MEASURES):
            continue
        middle, low, high = _ratio(key, cell, slower[1] if slower else None)
        values = {
            "percent": claim.measured(middle),
            "low": claim.measured(high), "high": claim.measured(low),
        }  # fmt: skip
        verdict = "not distinguishable"
        if values["low"] >= claim.percent:
            verdict = "holds"
        elif values["high"] < claim.percent:
            verdict = "fails"
        yield _row(
            claim, verdict, **values, rounds=cell["rounds"], model=profile["model"],
            device=profile["hardware"]["name"], dtype=profile["settings"]["dtype"],
            weights=profile["settings"]["weights"], vision_tokens=cell["vision_tokens"],
            batch=cell["batch"], new_tokens=1 if key == "ttft_ms" else int(key.split("_")[1]),
            note="" if "cuda" in profile["hardware"] else NO_GPU,
        )  # fmt: skip


def _ratio(
    key: str, faster: Mapping[str, Any], slower: Mapping[str, Any] | None
) -> tuple[float, float, float]:
    """Time of the faster over that of the slower method, and the ends of its interval."""
    if slower is None:
        return median_interval(_over_vanilla(key, faster))
    # both intervals hold together with at least the level of one
    level = (1 + LEVEL) / 2
    first, low, high = median_interval(_over_vanilla(key, faster), level)
    second, slower_low, slower_high = median_interval(_over_vanilla(key, slower), level)
    return first / second, low / slower_high, high / slower_low


def _over_vanilla(key: str, cell: Mapping[str, Any]) -> list[float]:
    """Time of the method over that of vanilla in each round."""
    method, plain = (cell["arms"][arm]["rounds"][key] for arm in ("method", VANILLA))
    return [a / b for a, b in zip(method, plain, strict=True)]


def _row(claim: TimeClaim, verdict: str, **values: Any) -> dict[str, Any]:
    names = (
        "percent", "low", "high", "rounds", "model", "device", "dtype", "weights", "vision_tokens",
        "batch", "new_tokens", "note",
    )  # fmt: skip
    about = {"claim": claim.id, "says": claim.says, "claimed": claim.percent, "verdict": verdict}
    return {**about, **{name: values.get(name, nan) for name in names}}


def time_sheet(frame: pd.DataFrame) -> Sheet:
    """Sheet of judged claims about time."""
    heads = (
        "claim", "verdict", "claimed", "measured [95 %]", "of", "model", "device", "vision tokens",
        "batch", "note",
    )  # fmt: skip
    body = []
    for row in frame.to_dict("records"):
        if row["verdict"] == "not measured":
            body.append((row["says"], row["verdict"], *[""] * 7, f"measure: {row['note']}"))
            continue
        answer = row["new_tokens"]
        body.append(
            (
                row["says"], row["verdict"], number(row["claimed"], ".1f", " %"),
                f"{span(row['percent'], row['low'], row['high'])} %",
                "first token" if answer == 1 else f"answer of {answer:.0f}", row["model"],
                f"{row['device']}, {row['dtype']}, {row['weights']} weights",
                f"{row['vision_tokens']:.0f}", f"{row['batch']:.0f}", row["note"],
            )
        )  # fmt: skip
    notes = (
        "measured: median over the rounds of a profile. The interval lies between order statistics "
        "and needs six rounds, or seven in each profile where two methods are compared, which is "
        "done through vanilla. holds: the whole interval reaches the claimed percentage; fails: no "
        "part of it does.",
    )
    return Sheet("Claims about time", heads, tuple(body), frozenset(), notes)
