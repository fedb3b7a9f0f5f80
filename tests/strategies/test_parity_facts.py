"""What the method cards say about parity is what the parity tests replay."""

import sys
from pathlib import Path

import pytest
import yaml
from golden_compared import compared
from golden_mustdrop import load_model
from golden_runners import HERE

from mustdrop import presets
from mustdrop.prefill import FastV, PyramidDrop, Random
from mustdrop.vision import ClsTopK

ROOT = Path(__file__).parents[2]
FACTS = yaml.safe_load((HERE / "compared.yaml").read_text())


@pytest.fixture(scope="module")
def parity():
    sys.path.insert(0, str(ROOT / "docs" / "build"))
    import parity

    sys.path.pop(0)
    return parity


def test_the_facts_are_those_of_a_replay(parity):
    facts = [{name: entry[name] for name in entry if name != "code"} for entry in FACTS]
    replayed = compared(load_model(HERE / "mustdrop"), parity.settings)
    assert facts == replayed, yaml.safe_dump(replayed, sort_keys=False)


def test_the_code_is_the_one_that_the_golden_data_names():
    text = " ".join((HERE / "README.md").read_text().split())
    assert not [entry["code"] for entry in FACTS if entry["code"] not in text]


def test_a_line_names_code_arrays_and_how_equal_they_are(parity):
    assert parity.line([FastV(keep=3)]) == (
        "pkunlp-icler/FastV at d1659729, 2 files: `cache_position`, `keep`, `position_ids`, "
        "`topk_desc` exactly; `score`, `hidden_out` within 1e-5 of the largest value"
    )
    assert parity.line([ClsTopK(3)]).count("`mask`") == 2  # FasterVLM's and HiRED's
    assert parity.line([PyramidDrop([0.5, 0.2, 0.1])]).startswith("Cooperx521/PyramidDrop")


def test_a_variant_is_not_what_the_authors_arrays_are_of(parity):
    assert parity.line([FastV(keep=3, rows="all")]) == (
        "no authors' arrays of this variant; those of pkunlp-icler/FastV at d1659729 have "
        "`FastV.rows = last`"
    )
    assert parity.line([Random(keep=3)]) == "no authors' arrays"
    assert parity.line([]) == "nothing to compare"


def test_all_strategies_of_a_method_count(parity):
    official, paper = (
        presets.load(name, model="pocket", benchmark="pocket_vqa", budget=64)
        for name in ("mustdrop_official", "mustdrop")
    )
    stages = ("vision", "key_tokens", "prefill", "decode")
    whole = [getattr(official, stage) for stage in stages]
    assert parity.line(whole).startswith("liuting20/MustDrop at 909afa5, 3 files: `decode_")
    assert "logits" in parity.line(whole)
    assert parity.line(whole[:-1]) == "no authors' arrays"
    line = parity.line([getattr(paper, stage) for stage in stages])
    assert line.startswith("no authors' arrays of this variant; those of liuting20/MustDrop")
    assert "`DualAttention.strict = True`" in line and "`LocalMerge.score = mean`" in line
