"""What docs/models.md says about families and strategies is true of them."""

import re
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from droppers import DROPPERS
from families import FAMILIES, FRAMES, Image, Video
from models import greedy, prompt, tiny_llava

from mustdrop import TokenDropper
from mustdrop.decode.output_aware import OutputAware
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.ledger import OFF_GRID
from mustdrop.models import ADAPTERS, adapter_for

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
STAGES = ("vision", "key_tokens", "prefill", "decode")
BUILDS = {
    "Gemma 3": FAMILIES["gemma3"].model,
    "Idefics3": FAMILIES["idefics3"].model,
    "InternVL3": FAMILIES["internvl"].model,
    "LLaVA-1.5, CLIP": tiny_llava,
    "LLaVA-1.5, SigLIP": lambda: tiny_llava(cls=False),
    "LLaVA-NeXT": FAMILIES["llava_next"].model,
    "LLaVA-OneVision": FAMILIES["onevision"].model,
    "Mistral 3": FAMILIES["mistral3"].model,
    "PaliGemma": FAMILIES["paligemma"].model,
    "Pixtral": FAMILIES["pixtral"].model,
    "Qwen2-VL": FAMILIES["qwen2_vl"].model,
    "Qwen2.5-VL": FAMILIES["qwen2_5_vl"].model,
    "Qwen3-VL": FAMILIES["qwen3_vl"].model,
    "SmolVLM": FAMILIES["smolvlm"].model,
    "Video-LLaVA": FAMILIES["video_llava"].model,
}


def rows(header: str) -> list[dict[str, str]]:
    """Rows of the table whose header starts so, by the names of the columns."""
    lines = PAGE.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(header))
    cells = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells.append([cell.strip() for cell in line.strip("|").split("|")])
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


# Families that the default tests try with one strategy of each place.
LATE = ("Idefics3", "InternVL3", "LLaVA-OneVision", "Mistral 3", "Pixtral", "SmolVLM")
FEWER = ("FastV", "LocalMerge", "DivPrune", "ClsAttention", "SinkRecent")
# Keys of FAMILIES, where they differ from the name.
KEYS = {"InternVL3": "internvl", "LLaVA-OneVision": "onevision"}


def classes(row: dict[str, str]) -> list[str]:
    """Classes of transformers that a row names."""
    return re.findall(r"`(\w+)`", row["class of transformers"])


def is_slow(strategy: str, family: str, entry: str) -> bool:
    """Whether a case is left to the slow tests."""
    return (family in LATE and strategy not in FEWER) or (family in BRIEF and entry == "yes")


FACTS = rows("| family | class")
BRIEF = ("Gemma 3", "PaliGemma", "Qwen3-VL")  # default tests: what needs a field or is refused
WORKS = [
    pytest.param(
        strategy, family, entry, id=f"{strategy}-{family}",
        marks=pytest.mark.slow if is_slow(strategy, family, entry) else (),
    )
    for row in rows("| strategy | Gemma")
    for strategy in re.findall(r"`(\w+)`", row["strategy"])
    for family, entry in row.items()
    if family != "strategy"
]  # fmt: skip


@cache
def model_of(family: str):
    return BUILDS[family]()


def inputs_of(family: str):
    model = model_of(family)
    if family.startswith("LLaVA-1.5"):
        return prompt(model)
    key = family.lower().replace("-", "_").replace(".", "_").replace(" ", "")
    made = FAMILIES[KEYS.get(family, key)]
    shown = Video(FRAMES, 16, 16) if family.startswith("Video") else Image(40, 24)
    return made.inputs(model, (3, shown, 7))


def dropper_with(strategy: str) -> tuple[TokenDropper, str]:
    """A dropper with this strategy alone, and the name of its stage."""
    extra = [TokenDropper(key_tokens=ClsAttention()), TokenDropper(decode=OutputAware(1))]
    for dropper in (*extra, *DROPPERS.values()):
        for stage in STAGES:
            if type(getattr(dropper, stage)).__name__ == strategy:
                return TokenDropper(**{stage: getattr(dropper, stage)}), stage
    raise AssertionError(f"no dropper has {strategy}")


def test_every_family_has_a_row():
    assert [row["family"] for row in FACTS] == list(BUILDS)
    assert {name for row in FACTS for name in classes(row)} == {*ADAPTERS}
    assert len(WORKS) == 21 * len(BUILDS)


@pytest.mark.parametrize("row", FACTS, ids=lambda row: row["family"])
def test_the_facts_are_those_of_the_adapter(row):
    model = model_of(row["family"])
    adapter = adapter_for(model)
    facts = adapter.facts
    assert type(model).__name__ in classes(row)
    assert row["patches of a cell"] == f"{facts.unit} x {facts.unit}"
    assert row["grid"] == ("any" if facts.grid is None else "fixed")
    assert row["[CLS]"] == ("yes" if facts.has_cls else "no")
    assert row["positions"] == ("coordinates" if facts.coordinates else "numbers")
    given = adapter.visual_inputs(inputs_of(row["family"])).values()
    shown, *_ = [visual for inputs in given for visual in inputs]
    kind = "[CLS] of frames" if shown.is_video else "newlines"
    assert row["off-grid slots"] == (kind if OFF_GRID in shown.cells else "none")


def test_the_readme_names_the_families_whose_encoder_runs_whole():
    whole = [name for name in BUILDS if adapter_for(model_of(name)).facts.whole_encoder]
    readme = (PAGE.parents[1] / "README.md").read_text()
    assert f"not inside the encoders of {', '.join(whole)}, which run whole" in readme


@pytest.mark.parametrize(("strategy", "family", "entry"), WORKS)
def test_a_strategy_works_with_the_fields_that_the_table_names(strategy, family, entry):
    dropper, stage = dropper_with(strategy)
    model = model_of(family)
    if entry == "no":
        with pytest.raises(ValueError, match="the encoder, which runs whole here"):
            replace(dropper, cls_attention="received").attach(model).__enter__()
        return
    if entry != "yes":
        needed = yaml.safe_load("{" + entry.replace("`", "").replace("=", ": ") + "}")
        with pytest.raises(ValueError, match="|".join(needed)):
            dropper.attach(model).__enter__()
        mine = {field.name for field in fields(getattr(dropper, stage))} & {*needed}
        changed = replace(getattr(dropper, stage), **{name: needed.pop(name) for name in mine})
        dropper = replace(dropper, **{stage: changed}, **needed)
    with dropper.attach(model) as run:
        greedy(model, inputs_of(family), steps=2)
    assert run.ledgers[0].vision.any()


@pytest.mark.parametrize("family", ["Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL"])
def test_cache_length_is_refused_where_positions_are_coordinates(family):
    with pytest.raises(ValueError, match="are coordinates: use 'continue'"):
        TokenDropper(decode_positions="cache_length").attach(model_of(family)).__enter__()
