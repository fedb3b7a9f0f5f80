"""A pack that is damaged, contradicts itself or differs silently is refused, with the reason."""

import json
import zipfile

import pytest
from results import draws
from shared_runs import (
    CODE,
    all_code,
    config_with,
    line_with,
    one_run,
    other_metric,
    record_of,
    repacked,
    rewritten,
)

from analysis.packs.archive import RefusedPack, open_pack, pack_names
from experiments.sharing import board as command
from experiments.sharing.board import opened
from mustdrop.cli.main import main as mustdrop


def test_of_five_packs_the_two_wrong_are_refused_with_the_reason(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "pictures", lambda methods: {})
    right = [
        one_run(tmp_path, "a", "vanilla", "none", 576.0, draws(0, 20, 0.9)),
        one_run(tmp_path, "b", "fastv"),
        one_run(tmp_path, "c", "mustdrop"),
    ]
    inputs = one_run(tmp_path, "d", "visionzip", change=line_with(3, question="another"))
    code = one_run(tmp_path, "e", "tome", **all_code(files={"mustdrop/budget.py": "eeeeeeeeeeee"}))
    out = tmp_path / "site"
    given = [str(path) for path in (*right[:1], inputs, *right[1:], code)]
    assert mustdrop(["board", *given, "--output", str(out)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: 2 packs are refused, so no board was written:",
        '  d.zip (visionzip t192): pocket x vqa: question of sample 3 of vqa is "another", in '
        'a.zip (vanilla none) it is "q3"',
        "  e.zip (tome t192): pocket x vqa: code mustdrop/budget.py is eeeeeeeeeeee, in a.zip "
        "(vanilla none) it is bbbbbbbbbbbb",
    ]
    assert not out.exists()
    assert mustdrop(["board", *map(str, right), "--output", str(out)]) == 0
    assert (out / "index.html").is_file() and (out / "methods" / "fastv.html").is_file()


DIFFERENT = {
    "model": (
        {"change": config_with(model={"dtype": "bfloat16"})},
        'config.model.dtype is "bfloat16", in a.zip (fastv t192) it is not set',
    ),
    "benchmark": (
        {"change": config_with(benchmark={"task": {"split": "easy_test"}})},
        'config.benchmark.task.split is "easy_test", in a.zip (fastv t192) it is not set',
    ),
    "target": (
        {"change": line_with(7, target="other")},
        'target of sample 7 of vqa is "other", in a.zip (fastv t192) it is "t7"',
    ),
    "picture": (
        {"change": line_with(0, image="other")},
        'picture of sample 0 of vqa is "other", in a.zip (fastv t192) it is "picture0"',
    ),
    "prompt": (
        {"change": line_with(19, prompt_tokens=601)},
        "number of prompt tokens of sample 19 of vqa is 601, in a.zip (fastv t192) it is 600",
    ),
    "number of samples": (
        {"scores": (1.0, 0.0) * 5},
        "number of samples is 10, in a.zip (fastv t192) it is 20",
    ),
    "other samples": (
        {"change": line_with(5, doc_id=99)},
        "sample 5 of vqa is missing, in a.zip (fastv t192) it is there",
    ),
    "data": (
        all_code(inputs={"benchmark.data/data/test-0.parquet": "dddddddddddd"}),
        "input benchmark.data/data/test-0.parquet is dddddddddddd, in a.zip (fastv t192) it is "
        "cccccccccccc",
    ),
    "library": (
        all_code(versions={"transformers": "5.20.0"}),
        "version of transformers is 5.20.0, in a.zip (fastv t192) it is 5.23.0",
    ),
    "budget": (
        {"change": config_with(budget={"tokens": 190})},
        'budget t192 is {"floor": null, "name": "t192", "tokens": 190}, in a.zip (fastv t192) it '
        'is {"floor": null, "name": "t192", "tokens": 192}',
    ),
    "metric": (
        {"change": other_metric},
        "metric is other, in a.zip (fastv t192) it is exact_match",
    ),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_a_silent_difference_is_refused_with_pack_field_and_values(tmp_path, kind):
    more, reason = DIFFERENT[kind]
    packs = [
        one_run(tmp_path, "a", "fastv"),
        one_run(tmp_path, "b", "tome"),
        one_run(tmp_path, "c", "mustdrop", **more),
    ]
    with pytest.raises(RefusedPack, match=r"^1 pack is refused") as caught:
        opened(packs, tmp_path / "opened")
    assert reason in str(caught.value) and "c.zip" in str(caught.value)


def test_a_wrong_pack_is_refused_wherever_it_stands(tmp_path):
    wrong = one_run(tmp_path, "a", "fastv", change=line_with(2, question="x"))
    right = [one_run(tmp_path, "b", "tome"), one_run(tmp_path, "c", "mustdrop")]
    for order in ([wrong, *right], [*right, wrong], [right[0], wrong, right[1]]):
        with pytest.raises(RefusedPack, match=r"1 pack is refused.*\n  a\.zip"):
            opened(order, tmp_path / f"opened{order.index(wrong)}")


CONTRADICTIONS = {
    "a budget that its samples do not have": (
        {"counts": {"nominal": 192, "paper_average": 180.0, "executed_average": 192.0,
                    "resident": 1.0}, "executed": 300.0},
        "its record states an executed average of 192.0, its samples have 300.0",
    ),
    "a budget that its config does not have": (
        {"config": {"budget": {"name": "t64", "tokens": 64, "floor": None}}},
        "its budget is t192, its config has t64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_a_run_that_contradicts_itself_is_refused(tmp_path, kind):
    more, reason = CONTRADICTIONS[kind]

    def change(folder):
        rewritten(folder, {**record_of(folder), "counts": more.get("counts", {
            "nominal": 192, "paper_average": 1.0, "executed_average": 192.0, "resident": 1.0,
        })})  # fmt: skip

    more = {name: value for name, value in more.items() if name != "counts"}
    path = one_run(tmp_path, "a", "fastv", change=change, **more)
    with pytest.raises(RefusedPack) as caught:
        opened([path], tmp_path / "opened")
    assert f"a.zip: e/pocket/fastv/t192/vqa-k: {reason}" in str(caught.value)


def lying(files):
    manifest = json.loads(files["manifest.json"])
    (entry,) = manifest["runs"].values()
    entry["budget"] = "t64"
    files["manifest.json"] = json.dumps(manifest).encode()


def without_code(files):
    manifest = json.loads(files["manifest.json"])
    manifest["code"] = {"f1": {"files": CODE["files"]}}
    files["manifest.json"] = json.dumps(manifest).encode()


def one_name(files, ending):
    return next(name for name in files if name.endswith(ending))


DAMAGED = {
    "a changed answer": (
        lambda files: files.update({one_name(files, "samples.jsonl"): b"{}"}),
        "samples.jsonl was changed: its SHA-256 is 44136fa355b3..., the manifest states",
    ),
    "a file more": (
        lambda files: files.update({"runs/a/b/c/d/e/record.json": b"{}"}),
        "runs/a/b/c/d/e/record.json is not in its manifest",
    ),
    "a file less": (
        lambda files: files.pop(one_name(files, "samples.jsonl")), "samples.jsonl is missing",
    ),
    "a path that leads out": (
        lambda files: files.update({"../../evil.json": b"{}"}), "holds '../../evil.json'",
    ),
    "a path in a name": (
        lambda files: files.update({"runs/a/../c/d/e/record.json": b"{}"}), "a pack has manifest",
    ),
    "an absolute path": (lambda files: files.update({"/etc/x": b""}), "holds '/etc/x'"),
    "a picture": (lambda files: files.update({"runs/a/b/c/d/e/x.png": b""}), "x.png"),
    "no manifest": (lambda files: files.pop("manifest.json"), "has no manifest.json"),
    "a torn manifest": (
        lambda files: files.update({"manifest.json": b"{"}), "manifest.json is not valid JSON",
    ),
    "a later format": (
        lambda files: files.update({"manifest.json": b'{"format": 2}'}), "format 2, expected 1",
    ),
    "an empty manifest": (
        lambda files: files.update({"manifest.json": b'{"format": 1}'}), "json has no runs",
    ),
    "no code": (without_code, "the manifest has no code of e/pocket/fastv/t192/vqa-k"),
    "a manifest that lies": (
        lying, "budget is 't192' in the record, 't64' in the manifest",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_pack_is_refused(tmp_path, kind):
    change, reason = DAMAGED[kind]
    path = repacked(one_run(tmp_path, "a", "fastv"), change)
    with pytest.raises(RefusedPack) as caught:
        opened([path], tmp_path / "opened")
    assert "a.zip" in str(caught.value) and reason in str(caught.value)
    assert not list(tmp_path.rglob("evil.json"))


def test_what_is_no_zip_file_is_refused(tmp_path, capsys):
    path = one_run(tmp_path, "a", "fastv")
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:-200])
    with zipfile.ZipFile(path) as archive:
        start = archive.infolist()[1].header_offset + 120
    torn = bytearray(path.read_bytes())
    torn[start : start + 8] = b"12345678"
    (tmp_path / "torn.zip").write_bytes(torn)
    for name in ("cut.zip", "torn.zip"):
        with pytest.raises(RefusedPack, match=f"{name} is no whole zip file"):
            open_pack(tmp_path / name, name, tmp_path / "opened")
    assert mustdrop(["board", str(tmp_path / "none.zip")]) == 2
    assert "no pack" in capsys.readouterr().err


def test_the_same_pack_twice_is_refused(tmp_path):
    path = one_run(tmp_path, "a", "fastv")
    (tmp_path / "b.zip").write_bytes(path.read_bytes())
    with pytest.raises(RefusedPack, match=r"b\.zip is the same pack as a\.zip"):
        opened([path, tmp_path / "b.zip"], tmp_path / "opened")


def test_packs_of_one_file_name_are_told_apart_without_their_whole_path(tmp_path):
    paths = [tmp_path / "x" / "pack.zip", tmp_path / "y" / "pack.zip", tmp_path / "z.zip"]
    assert pack_names(paths) == ["x/pack.zip", "y/pack.zip", f"{tmp_path.name}/z.zip"]
    assert pack_names(paths[1:]) == ["pack.zip", "z.zip"]
    assert pack_names(paths[:1] * 2) == ["pack.zip", "pack.zip"]
