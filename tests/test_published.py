import math

import numpy as np
import pytest
from results import draws, write

from analysis.published import beside, paper_table, published
from analysis.tables import summary


def test_table_1_is_the_papers():
    table = paper_table(1)
    assert {source for source, _, _ in table.columns} == {"paper"}
    ours = table.loc[("LLaVA-1.5-7B", "64 (equal avg tokens)", "MustDrop")]
    assert ours.tolist() == [53.1, 60.0, 1612, 51.2, 63.4, 69.3, 54.2]
    assert len(table) == 17
    with pytest.raises(ValueError, match=r"table must be one of \[1, 2, 3, 4, 5, 6\], got 7"):
        paper_table(7)


def test_every_published_number_has_a_source():
    numbers = published()
    assert len(numbers) == 1418
    assert numbers["source"].str.len().gt(5).all() and numbers["value"].notna().all()
    clock = numbers[numbers["metric"] == "wall_time_s"].iloc[0]
    assert clock["value"] > 600
    assert published().loc[numbers["budget"] == "6.6% (~136 tokens)", "tokens"].eq(136).all()
    assert published().loc[numbers["budget"] == "50%", "tokens"].isna().all()


def test_measured_and_published_never_share_a_column(tmp_path):
    model = {"name": "llava15_7b"}
    write(tmp_path, "fastv", "t64", 80.3, draws(1), model="llava15_7b", benchmark="scienceqa")
    write(tmp_path, "vanilla", "none", 576.0, draws(0), model="llava15_7b", benchmark="nowhere",
          config={"model": model})  # fmt: skip
    write(tmp_path, "fastv", "t128", 128.0, draws(1), model="llava15_7b", benchmark="mme")
    frame = beside(summary(tmp_path), {"scienceqa": "ScienceQA-IMG"}).set_index("method")
    found = frame.loc["fastv"].set_index("benchmark")
    # MME as perception alone is another metric, and no other source
    assert found.loc["mme", "published_metric"] == "score_sum(perception+cognition)"
    assert found.loc["mme", ["others_low", "others_high"]].tolist() == [1646, 1646]
    found = found.loc["scienceqa"]
    assert (found["ours"], found["paper"]) == (pytest.approx(100 * np.mean(draws(1))), 51.1)
    assert (found["others_low"], found["others_high"]) == (68.7, 70.0)
    assert found["ours_executed"] == 80.3 and found["paper_budget"].startswith("64")
    assert math.isnan(frame.loc["vanilla", "paper"]) and frame.loc["vanilla", "others_n"] == 0


def test_a_file_of_other_numbers_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("method,value\na,1\n")
    with pytest.raises(ValueError, match="must have the columns"):
        published(path)
    head = "method,model,budget,benchmark,metric,value,source\n"
    path.write_text(head + "a,b,64,c,accuracy,much,someone\n")
    with pytest.raises(ValueError, match="no number: 'much'"):
        published(path)
