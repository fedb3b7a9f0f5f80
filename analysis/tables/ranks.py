"""Order of methods on several models side by side, and how far two orders agree.

Models differ in benchmark and in what they answer with all tokens, so methods are compared by the
share of vanilla's score that they keep. Knows nothing about folders of runs: it reads summaries
(:func:`analysis.tables.summary.summary`) and published numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

# Benchmarks that most papers report on LLaVA-1.5-7B, with the metric that is compared.
COMMON = {
    "GQA": "accuracy", "MMBench-EN": "accuracy", "MME": "score_sum", "ScienceQA-IMG": "accuracy",
    "TextVQA": "accuracy", "VQAv2": "accuracy",
}  # fmt: skip
FEWEST = 3  # of these benchmarks a source must report
PERMUTATIONS = 9999
ALIASES = {"ScienceQA": "ScienceQA-IMG"}


@dataclass(frozen=True)
class RankAgreement:
    """Agreement of two orders of the same methods.

    Attributes:
        rho: Spearman's rank correlation; NaN if fewer than three methods are shared.
        p: Two-sided p of a permutation test: how often a random order agrees or disagrees as much.
        n: Number of methods that both orders have.
    """

    rho: float
    p: float
    n: int


def measured_shares(rows: pd.DataFrame, budget: str, benchmark: str = "pocket_vqa") -> pd.Series:
    """Share of vanilla's accuracy on the same questions that each method keeps, in percent.

    Vanilla may have answered more questions than a method. Floors, variants and runs with an image
    control are left out.

    Args:
        rows: Summary of runs of one model.
        budget: Name of the budget, such as ``t64``.
        benchmark: Benchmark of the rows to read.

    Raises:
        ValueError: If there is not exactly one run of vanilla.
    """
    rows = rows.loc[(rows.benchmark == benchmark) & rows.image.isna() & rows.variant.isna()]
    vanilla = rows.loc[rows.method == "vanilla"]
    if len(vanilla) != 1:
        raise ValueError(f"need one run of vanilla on {benchmark}, got {len(vanilla)}")
    here = rows.loc[(rows.budget == budget) & rows.floor.isna()].set_index("method")
    return 100 * here.accuracy / (here.accuracy - here.vs_vanilla)


def published_shares(
    numbers: pd.DataFrame, names: Mapping[str, str], tokens: int, model: str = "LLaVA-1.5-7B"
) -> pd.DataFrame:
    """Share of vanilla's score that each method keeps as published, in percent.

    A source's share is its mean over the common benchmarks, each relative to the median of all
    published scores of vanilla. The columns are the median over sources, the lowest and highest
    source, and the number of sources.

    Args:
        numbers: Published numbers (:func:`analysis.published.numbers.published`).
        names: Our name of each method -> its published name.
        tokens: Number of vision tokens.
        model: Name of the model.
    """
    numbers = numbers.assign(benchmark=numbers.benchmark.replace(ALIASES))
    wanted = numbers.benchmark.map(COMMON) == numbers.metric
    numbers = numbers.loc[wanted & (numbers.model == model)]
    whole = numbers.loc[numbers.method == "vanilla"].groupby("benchmark").value.median()
    numbers = numbers.loc[numbers.tokens == tokens]
    shares = 100 * numbers.value / numbers.benchmark.map(whole)
    numbers = numbers.assign(share=shares).dropna(subset="share")
    by_source = numbers.groupby(["method", "source"]).agg(
        share=("share", "mean"), benchmarks=("benchmark", "nunique")
    )
    by_source = by_source[by_source.benchmarks >= FEWEST].share
    columns = ("median", "lowest", "highest", "sources")
    rows = {}
    for method, published in names.items():
        if published in by_source.index.get_level_values("method"):
            values = by_source[published]
            rows[method] = (values.median(), values.min(), values.max(), len(values))
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(columns))


def agreement(first: pd.Series, second: pd.Series) -> RankAgreement:
    """Compare the orders of the methods that both have."""
    shared = first.dropna().index.intersection(second.dropna().index)
    if len(shared) < 3:
        return RankAgreement(float("nan"), float("nan"), len(shared))
    x, y = (np.asarray(series.loc[list(shared)], dtype=float) for series in (first, second))

    def rho(values: np.ndarray) -> float:
        return float(np.corrcoef(stats.rankdata(values), stats.rankdata(y))[0, 1])

    test = stats.permutation_test(
        (x,), rho, permutation_type="pairings", n_resamples=PERMUTATIONS,
        rng=np.random.default_rng(0), vectorized=False,
    )  # fmt: skip
    return RankAgreement(rho(x), float(test.pvalue), len(shared))


def side_by_side(columns: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Shares of the methods that at least two models have, with ranks among those that all have.

    Sorted by the first model. A rank of 1 is the best; equal shares have their mean rank. Vanilla
    is no method here.
    """
    frame = pd.DataFrame(dict(columns)).drop(index="vanilla", errors="ignore")
    frame = frame.loc[frame.notna().sum(axis=1) > 1]
    shared = frame.dropna().index
    for name in columns:
        frame[f"{name} rank"] = frame.loc[shared, name].rank(ascending=False)
    return frame.sort_values(by=[next(iter(columns))], ascending=False, kind="stable")


def ranks_markdown(columns: Mapping[str, pd.Series]) -> str:
    """Markdown of :func:`side_by_side`, and a line about each pair of models."""
    frame = side_by_side(columns)
    lines = [
        f"| method | {' | '.join(columns)} |",
        "| --- " * (len(columns) + 1) + "|",
    ]
    for method, row in zip(frame.index, frame.to_dict("records"), strict=True):
        cells = [_cell(row[name], row[f"{name} rank"]) for name in columns]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines += ["", *_agreements(columns)]
    return "\n".join(lines)


def _cell(share: float, rank: float) -> str:
    if pd.isna(share):
        return "–"
    return f"{share:.1f}" if pd.isna(rank) else f"{share:.1f} ({rank:g})"


def _agreements(columns: Mapping[str, pd.Series]) -> Sequence[str]:
    names = list(columns)
    lines = []
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            both = agreement(columns[first].drop("vanilla", errors="ignore"), columns[second])
            lines.append(
                f"- {first} and {second}: Spearman's rho {both.rho:+.2f}, "
                f"p {'< 0.01' if both.p < 0.01 else f'= {both.p:.2f}'}, "
                f"{both.n} methods"
                if both.n >= 3
                else f"- {first} and {second}: {both.n} methods in common, too few for an order"
            )
    return lines
