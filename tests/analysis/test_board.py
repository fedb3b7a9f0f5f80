"""A board shows true numbers, ranks only what is at its budget, and runs nothing of a pack."""

import json

import pytest
from results import draws, floor
from shared_runs import CODE, all_code, contents, line_with, one_run, packed, shared_run

from analysis.board.leaderboards import leaderboards
from analysis.board.site import site_files, write_site
from analysis.packs.archive import write_pack
from analysis.records.cells import load
from analysis.tables.sheets import sheet
from analysis.tables.summary import summary_of_cells
from experiments.sharing.board import opened


@pytest.fixture
def shared(tmp_path):
    """Opened packs: vanilla in one, methods in another, on other hardware."""
    root, gpu = tmp_path / "a", {"cpu": "x", "gpu": "H100", "threads": 8}
    shared_run(root, "vanilla", "none", 576.0, draws(0, 40, 0.9))
    shared_run(root, "random", scores=draws(1, 40, 0.4))
    other = tmp_path / "b"
    code = all_code(versions={"torch": "2.13.0+cu128"})["code"]
    more = {"hardware": gpu, "code": code, "fingerprint": "f2"}
    shared_run(other, "fastv", scores=draws(2, 40, 0.6), **more)
    shared_run(other, "tome", scores=draws(2, 40, 0.6), **more)
    shared_run(other, "mustdrop", scores=draws(3, 40, 0.8), **more)
    shared_run(other, "visionzip", executed=220.0, scores=draws(4, 40, 0.95), **more)
    shared_run(other, "fastv", "t64", 64.0, scores=draws(5, 40, 0.5), **more)
    floor(other, "sparsevlm", "t64", 80.0)
    reachless = next(other.rglob("sparsevlm/t64/*"))
    (reachless / "status.json").write_text(json.dumps({"fingerprint": "f1", "code": CODE}))
    paths = [packed(root, tmp_path / "a.zip"), packed(other, tmp_path / "b.zip")]
    return opened(paths, tmp_path / "opened")


def test_hardware_may_differ_and_is_shown(shared):
    (board,) = leaderboards(shared[1])
    assert board.origins == ("hardware", "origin")
    rows = [row for table in board.tables for _, part in table.parts for row in part]
    assert {(row.origin, row.hardware) for row in rows} == {
        ("a.zip", "x, 1 thread"), ("b.zip", "H100"), ("b.zip", "–"),
    }  # fmt: skip


def test_only_methods_at_the_budget_have_a_rank(shared):
    (board,) = leaderboards(shared[1])
    large, small = board.tables
    assert (large.label, small.label) == (
        "192 vision tokens per layer", "64 vision tokens per layer",
    )  # fmt: skip
    shown = {title: [(row.method, row.rank) for row in part] for title, part in large.parts}
    assert shown == {
        "Reference": [("vanilla", None)],
        "Methods at the budget": [("mustdrop", 1), ("fastv", 2), ("tome", 2)],
        "Not within 1 % of the budget: no rank": [("visionzip", None)],
        "Controls and bounds: no rank": [("random", None)],
    }
    assert [title for title, _ in small.parts] == [
        "Reference", "Methods at the budget", "The method cannot reach the budget",
    ]  # fmt: skip


def test_the_numbers_are_those_of_the_tables(shared, tmp_path):
    """Vanilla of another pack is the reference, as if all runs lay in one folder."""
    (board,) = leaderboards(shared[1])
    cells = [*load(tmp_path / "a"), *load(tmp_path / "b")]
    frame = summary_of_cells(cells)
    expected = sheet(frame)
    scores = expected.heads.index(board.score)
    delta = expected.heads.index("Δ vanilla [95 %]")
    texts = {(row[0], row[1]): (row[scores], row[delta]) for row in expected.rows}
    checked = 0
    for table in board.tables:
        for _, part in table.parts:
            for row in part:
                budget = "none" if row.kind == "reference" else table.budget
                vanilla = board.heads.index("Δ vanilla [95 %]")
                assert (row.score, row.cells[vanilla]) == texts[row.method, budget]
                checked += row.cells[vanilla] != "–"
    assert checked == 6
    bars = {
        row.method: row.bar for table in board.tables for _, part in table.parts for row in part
    }
    assert bars["sparsevlm"] is None
    low, value, high = bars["vanilla"]
    assert 0 <= low < value < high <= 1 and board.reference == value
    assert max(bar[2] for bar in bars.values() if bar) == 1.0


def test_a_run_that_two_packs_measured_stands_twice(tmp_path):
    packs = [
        one_run(tmp_path, name, "fastv", scores=draws(seed, 20), finished=name)
        for seed, name in enumerate("ab")
    ]
    (board,) = leaderboards(opened(packs, tmp_path / "opened")[1])
    ((_, rows),) = board.tables[0].parts
    assert sorted((row.variant, row.origin) for row in rows) == [
        ("a.zip", "a.zip"), ("b.zip", "b.zip"),
    ]  # fmt: skip
    assert board.reference is None


NASTY = "</script><script>alert(1)</script>\"'&<img src=x onerror=z>"


def test_texts_of_a_pack_are_shown_and_never_run(tmp_path):
    change = line_with(0, question=NASTY, answer=NASTY)
    config = {"prefill": {"_target_": "os.abort"}, "seed": NASTY}
    path = one_run(tmp_path, "a", "fastv", change=change, config=config, hardware={"cpu": NASTY})
    files = contents(path)
    manifest = json.loads(files["manifest.json"])
    manifest["methods"]["fastv"] = {"description": NASTY, "source": f"arXiv:2403.06764 {NASTY}"}
    files["manifest.json"] = json.dumps(manifest).encode()
    path.unlink()
    write_pack(path, files)
    pages = site_files(*opened([path], tmp_path / "opened"), {})
    assert set(pages) == {
        "index.html", "methods/fastv.html", "samples/pocket-vqa.html", "board.json",
    }  # fmt: skip
    for name, text in pages.items():
        assert "<img src=x" not in text and "<script>alert" not in text, name
    page = pages["methods/fastv.html"]
    assert '<a href="https://arxiv.org/abs/2403.06764">arXiv:2403.06764</a>' in page
    assert "&lt;/script&gt;" in page


def test_the_same_packs_give_the_same_bytes(shared):
    assert site_files(*shared, {}) == site_files(*shared, {})


def test_a_board_replaces_a_board_and_nothing_else(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    write_site(folder, {"board.json": "{}", "methods/old.html": "x", "index.html": "1"})
    (folder / "CNAME").write_text("board.example")
    write_site(folder, {"board.json": "{}", "methods/new.html": "x", "index.html": "2"})
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {
        "board.json", "new.html", "index.html", "CNAME",
    }  # fmt: skip
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    for path in (other, other / "thesis.tex"):
        with pytest.raises(ValueError, match="is no board"):
            write_site(path, {"board.json": "{}"})
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]
