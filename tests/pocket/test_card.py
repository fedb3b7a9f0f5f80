"""The data card of the packaged weights tells what the records hold, to the digit."""

from pathlib import Path

import pandas as pd
import pytest
from safetensors import safe_open

from mustdrop.pocket import CHECKPOINT, QUESTION_TYPES

CARD = CHECKPOINT / "README.md"
RECORDS = Path(__file__).parents[2] / "experiments" / "records"
SINGLE = {
    "all 576 tokens": ("vanilla", "pocket_vqa"),
    "blind": ("vanilla", "pocket_vqa_blind"),
    "a tenth from half the depth on": ("random", "pocket_vqa"),
    "objects alone": ("oracle", "pocket_vqa"),
}
ARMS = ("random", "cls_topk", "text_topk", "oracle", "anti_oracle")


def percent(row) -> str:
    return f"{100 * row.accuracy:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"


def one(table: pd.DataFrame, method: str, budget: str, benchmark: str, variant: str = ""):
    named = (table.method == method) & (table.budget == budget) & (table.benchmark == benchmark)
    return table[named & table.variant.fillna("").str.contains(variant, regex=False)]


def lines() -> dict[str, list[str]]:
    """The card's tables, line by line, from the records."""
    whole, types, bars = (
        pd.read_csv(RECORDS / f"separation{part}.csv") for part in ("", "_types", "_bars")
    )
    heads = ("questions", "all", *QUESTION_TYPES)
    accuracy = [_row(heads), "|" + "-|" * len(heads)]
    for name, (method, benchmark) in SINGLE.items():
        (cell,) = one(whole, method, "none", benchmark).itertuples()
        by = one(types, method, "none", benchmark).set_index("type")
        scores = [f"{100 * by.loc[kind, 'accuracy']:.1f}" for kind in QUESTION_TYPES]
        accuracy.append(_row((name, percent(cell), *scores)))
    judged = [_row(("bar", "asked", "measured [95 %]", "reached")), "|-|-|-|-|"]
    for bar in bars.itertuples():
        told = f"{100 * bar.value:.1f} [{100 * bar.low:.1f}, {100 * bar.high:.1f}]"
        judged.append(_row((bar.name, bar.asked, told, "yes" if bar.reached else "**no**")))
    heads = ("executed average", *ARMS, "text_topk, as many kept (average)")
    arms = [_row(heads), "|" + "-|" * len(heads)]
    for tokens in (288, 144, 64):
        cells = [
            next(one(whole, method, f"t{tokens}", "pocket_vqa").itertuples(index=False))
            for method in ARMS
        ]
        kept = one(whole, "text_topk", "none", "pocket_vqa", f"prefill.keep={tokens}")
        (more,) = kept.itertuples(index=False)
        told = [percent(cell) for cell in cells]
        arms.append(_row((tokens, *told, f"{percent(more)} ({more.executed_average:.0f})")))
        recalls = [f"{100 * cell.target_recall:.1f}" for cell in (*cells, more)]
        arms.append(_row(("target recall", *recalls)))
    return {"ACCURACY": accuracy, "BARS": judged, "ARMS": arms}


def _row(cells) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


@pytest.mark.parametrize("table", ["ACCURACY", "BARS", "ARMS"])
def test_every_line_of_a_table_is_the_records(table):
    told = CARD.read_text().splitlines()
    for line in lines()[table]:
        assert line in told


def test_the_readmes_short_version_is_the_records_too():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (paragraph,) = (part for part in readme.split("\n\n") if part.startswith("**Can PocketLLaVA"))
    bars = pd.read_csv(RECORDS / "separation_bars.csv")
    for value in bars.value[:4]:
        assert f"{100 * value:.1f}" in paragraph
    for bar in bars[bars.name.str.contains("over cls_topk")].itertuples():
        apart = bar.low > 0 or bar.high < 0
        assert apart == bar.name.endswith("(64)"), "told from each other at 64 only"
    assert bars[bars.name.str.contains("over random")].reached.all()


def test_the_card_of_pocketsmol_has_the_bars_of_the_record():
    card = (CHECKPOINT.with_name("checkpoint_smol") / "README.md").read_text()
    bars = pd.read_csv(RECORDS / "smol_bars.csv").iloc[:6]
    for bar in bars.itertuples():
        value, low, high = (f"{100 * number:.1f}" for number in (bar.value, bar.low, bar.high))
        assert f"{value} [{low}, {high}]" in card, bar.name
        assert f"n = {bar.n:.0f}" in card, bar.name
    assert list(bars.reached) == [True, False, False, True, True, True]
    assert card.count("**no**") == 1


def test_size_and_curve_are_as_told():
    card = CARD.read_text()
    weights = CHECKPOINT / "model.safetensors"
    with safe_open(weights, "pt") as file:
        size = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert f"{size:,} parameters" in card and f"{weights.stat().st_size:,} bytes" in card
    curve = pd.read_csv(CHECKPOINT / "curve.csv")
    assert f"{curve.done.iloc[-1]:,} steps, {curve.seconds.iloc[-1]:,.0f} s" in card
    for stage, steps in curve.groupby("stage").step.max().items():
        assert f"| {stage} | {steps} |" in card
