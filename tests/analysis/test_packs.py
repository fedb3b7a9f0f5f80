"""A pack holds what others need to check a run, and nothing private; equal runs, equal bytes."""

import json
import zipfile
from pathlib import Path

import pytest
from results import floor
from shared_runs import CODE, changed_lines, contents, packed, rewritten, shared_run

from analysis.packs.private import PrivateTexts
from analysis.records.cells import load
from experiments.run import run
from experiments.sharing.pack import main
from mustdrop.cli.main import main as mustdrop
from mustdrop.presets.compose import composed


@pytest.fixture
def root(tmp_path):
    for method, budget, executed in (("vanilla", "none", 576.0), ("fastv", "t192", 192.0)):
        shared_run(tmp_path / "outputs", method, budget, executed)
    return tmp_path / "outputs"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Two runs of the embedded model."""
    root = tmp_path_factory.mktemp("outputs")
    for arm in (("method=vanilla", "budget=none"), ("method=random", "budget=t64")):
        run(composed(*arm, f"output_root={root}", "benchmark.limit=2", "controls=none", "traces=1",
                     "device=cpu", "workers=0"), [])  # fmt: skip
    return root


@pytest.mark.slow
def test_a_pack_of_real_runs_has_their_records_samples_and_code(real, tmp_path, capsys):
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    assert main([str(real), "--output", str(first)]) == 0
    assert "2 runs of 2 methods" in capsys.readouterr().out
    assert main([str(real), "--output", str(second)]) == 0
    assert first.read_bytes() == second.read_bytes()
    files = contents(first)
    assert {name.rpartition("/")[2] for name in files} == {
        "manifest.json", "record.json", "samples.jsonl",
    }  # fmt: skip
    assert not any(mark in data for mark in (b"\x89PNG", b"RIFF", b"PK\x03\x04\x14", b"NUMPY")
                   for data in files.values())  # fmt: skip
    assert str(real).encode() not in b"".join(files.values())
    manifest = json.loads(files["manifest.json"])
    assert manifest["format"] == 1 and len(manifest["runs"]) == 2
    for entry in manifest["runs"].values():
        code = manifest["code"][entry["fingerprint"]]
        assert "mustdrop/engine/session.py" in code["files"]
        assert entry["versions"] == code["versions"] and entry["hardware"]["threads"] >= 1
        assert entry["model"] == "pocket" and entry["n"] == 2
    assert manifest["methods"]["random"]["source"] == "ours"
    with zipfile.ZipFile(first) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert [list(cell.samples["score"]) for cell in load(tmp_path / "unpacked")] == [
        list(cell.samples["score"]) for cell in load(real)
    ]


def test_the_same_runs_give_the_same_bytes(root, tmp_path):
    parts = [str(root / "e" / "pocket" / name) for name in ("vanilla", "fastv")]
    for name, order in (("a.zip", parts), ("b.zip", parts[::-1])):
        assert main([*order, "--output", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        infos = archive.infolist()
    assert [info.filename for info in infos] == sorted(info.filename for info in infos)
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}


SECRETS = ("wandb0123456789abcdef", "hf_ABCDEFGHIJKLMNOPQRST", "pass4word")


def test_nothing_private_is_in_a_pack(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRETS[0])
    monkeypatch.setattr(Path, "home", lambda: Path("/home/anna"))
    monkeypatch.setattr("analysis.packs.private.getuser", lambda: "anna")
    model = {"name": "pocket", "pretrained": "/home/anna/weights/llava", "cache": "~/hub/models"}
    extra = {
        "model": model, "tracker": {"api_key": SECRETS[0], "entity": "anna-group"},
        "judge": {"token": SECRETS[2], "url": f"https://anna:{SECRETS[2]}@judge.example/v1"},
    }  # fmt: skip
    folder = shared_run(
        tmp_path / "anna", "fastv", config=extra,
        unreadable=[{"doc_id": 9, "reason": "/data/anna/9.mp4 cannot be read"}],
        thresholds=[f"found with {SECRETS[1]} and {SECRETS[0]}"],
        hardware={"cpu": "x", "threads": 1, "log": "C:\\Users\\anna\\log"},
    )  # fmt: skip
    changed_lines(folder, lambda line: line.update(answer=f"see /home/anna/x, {SECRETS[0]}"))
    (folder / "run.log").write_text("anna")
    out = tmp_path / "out.zip"
    assert main([str(tmp_path / "anna"), "--output", str(out)]) == 0
    files = contents(out)
    everything = b"".join(files.values()) + "".join(files).encode() + out.read_bytes()
    for text in (*SECRETS, "anna", str(tmp_path), "run.log\n"):
        assert text.encode() not in everything, text
    manifest = json.loads(files["manifest.json"])
    assert {"<secret>", "<path>", "<home>"} <= manifest["replaced"].keys()
    assert any("output_root" in entry and "tracker" in entry for entry in manifest["left_out"])
    (record,) = (json.loads(data) for name, data in files.items() if name.endswith("record.json"))
    assert record["config"]["model"] == {
        "name": "pocket", "pretrained": "<path>/llava", "cache": "<path>/models",
    }  # fmt: skip
    assert record["config"]["judge"] == {
        "token": "<secret>", "url": "https://<secret>@judge.example/v1",
    }  # fmt: skip
    assert record["unreadable"][0]["reason"] == "<path>/9.mp4 cannot be read"


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("/mnt/anna", "<path>/<user>"),
        ("runs/anna/x", "runs/<user>/x"),
        ("file:///home/anna/x", "<path>/x"),
        ("see /home/anna/a/b.jpg, now", "see <path>/b.jpg, now"),
        ("\\\\server\\share\\x", "<path>/x"),
        # none of these is a path of a machine
        ("/no_think", "/no_think"),
        ("yes/no and/or 3 / 5", "yes/no and/or 3 / 5"),
        ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf"),
        ("https://huggingface.co/a/b", "https://huggingface.co/a/b"),
        ("909afa5e1f2b3c4d5e6f708192a3b4c5d6e7f809", "909afa5e1f2b3c4d5e6f708192a3b4c5d6e7f809"),
    ],
)
def test_paths_are_replaced_and_names_stay(text, shared):
    private = PrivateTexts({"KEY": "false", "TOKENIZERS": "1"}, Path("/home/anna"), "anna")
    assert private.text(text) == shared


def test_a_question_keeps_its_slashes_but_not_the_home_folder():
    private = PrivateTexts({}, Path("/home/anna"), "anna")
    line = {"question": "Is /a/b/c in /home/anna?", "target": ["/x/y", "/home/annabel"]}
    assert private.record(line) == {
        "question": "Is /a/b/c in <home>?", "target": ["/x/y", "/home/annabel"],
    }  # fmt: skip


def test_another_file_is_not_overwritten(root, tmp_path, capsys):
    out = tmp_path / "p.zip"
    assert mustdrop(["pack", str(root), "--output", str(out)]) == 0
    before = out.read_bytes()
    assert mustdrop(["pack", str(root), "--output", str(out)]) == 0
    assert "the same pack was there already" in capsys.readouterr().out
    shared_run(root, "random")
    assert mustdrop(["pack", str(root), "--output", str(out)]) == 2
    assert "exists and is not this pack" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_unfinished_and_damaged_runs_are_left_out_and_named(root, tmp_path, capsys):
    started = shared_run(root, "tome")
    (started / "record.json").unlink()
    torn = shared_run(root, "vtw")
    (torn / "samples.jsonl").write_text('{"doc_id": 0}\n')
    floor(root, "sparsevlm", "t64", 80.0)
    (status,) = root.glob("e/pocket/fastv/**/status.json")
    reachless = next(root.glob("e/pocket/sparsevlm/t64/*"))
    (reachless / "status.json").write_text(status.read_text())
    out = tmp_path / "p.zip"
    assert main([str(root), "--output", str(out)]) == 0
    errors = capsys.readouterr().err
    assert f"left out: {started} is not finished; mustdrop run continues it" in errors
    assert f"left out: {torn}/samples.jsonl" in errors
    runs = json.loads(contents(out)["manifest.json"])["runs"]
    methods = {entry["method"] for entry in runs.values()}
    assert methods == {"vanilla", "fastv", "sparsevlm"}


def test_there_is_no_pack_without_a_finished_run(tmp_path, capsys):
    folder = shared_run(tmp_path, "fastv")
    (folder / "record.json").unlink()
    assert mustdrop(["pack", str(tmp_path), "--output", str(tmp_path / "p.zip")]) == 2
    assert "no finished run (record.json)" in capsys.readouterr().err
    assert mustdrop(["pack", str(tmp_path / "none")]) == 2
    assert "no results folder" in capsys.readouterr().err


def test_a_run_whose_code_is_not_known_is_refused(root, tmp_path, capsys):
    path = next(root.rglob("status.json"))
    path.write_text(json.dumps({"fingerprint": "other", "code": CODE}))
    assert mustdrop(["pack", str(root), "--output", str(tmp_path / "p.zip")]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and "does not state the code of the record" in error


def test_runs_that_no_board_would_take_are_refused_at_once(root, tmp_path, capsys):
    shared_run(root, "random", code={**CODE, "versions": {**CODE["versions"], "torch": "2.9.0"}},
               fingerprint="f2")  # fmt: skip
    out = tmp_path / "p.zip"
    assert mustdrop(["pack", str(root), "--output", str(out)]) == 2
    error = capsys.readouterr().err
    assert "version of torch is 2.9.0" in error and "it is 2.13.0" in error
    assert not out.exists()


def test_two_runs_of_the_same_names_do_not_share_a_pack(root, tmp_path, capsys):
    other = shared_run(tmp_path / "more", "fastv", scores=(0.0, 1.0) * 10)
    main([str(root), str(root / "e"), "--output", str(tmp_path / "p.zip")])  # the same runs twice
    command = ["pack", str(root), str(tmp_path / "more"), "--output", str(tmp_path / "q.zip")]
    assert mustdrop(command) == 2
    assert f"{other} are different runs with the same names" in capsys.readouterr().err


def test_a_name_that_is_no_file_name_is_refused(tmp_path, capsys):
    folder = shared_run(tmp_path / "runs", "fastv")
    record = json.loads((folder / "record.json").read_text())
    rewritten(folder, {**record, "experiment": "../up"})
    assert mustdrop(["pack", str(tmp_path / "runs"), "--output", str(tmp_path / "p.zip")]) == 2
    assert "cannot be a name in a pack" in capsys.readouterr().err


def test_a_run_that_grew_since_its_record_is_packed_as_recorded(root, tmp_path):
    folder = next(root.glob("e/pocket/fastv/*/*"))
    text = (folder / "samples.jsonl").read_text()
    before = contents(packed(root, tmp_path / "a.zip"))
    (folder / "samples.jsonl").write_text(text + text.splitlines()[0].replace("0", "77", 1) + "\n")
    assert contents(packed(root, tmp_path / "b.zip")) == before
