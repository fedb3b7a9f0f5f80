"""Code, model and rows enter a run's fingerprint by content; no run mixes two of any."""

import json
import os
import shutil
import struct
import time
from pathlib import Path

import datasets
import pytest

from experiments.compose import composed, resolved
from experiments.lmms_plugin import overrides
from experiments.run import run
from mustdrop.harness import content, row_files, weights
from mustdrop.harness.content import content_hash
from mustdrop.harness.fingerprint import CHECKPOINT, MISSING, Fingerprint
from mustdrop.harness.tasks.rows import load_rows
from mustdrop.pocket import CHECKPOINT as PACKAGED
from tests.standins import ROWS, write, write_benchmark

DECIDING = (
    "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
    "processor_config.json", "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Nothing is left in the user's own cache of data sets."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def edit(path, text=" "):
    """Add to a file, and set its time back, as copying tools do."""
    before = path.stat()
    path.write_bytes(path.read_bytes() + text.encode())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def inputs(**nodes):
    """The model's and the rows' part of a fingerprint."""
    model = {"pretrained": "packaged", "revision": None, **nodes.get("model", {})}
    config = {"model": model, "benchmark": {"task": nodes.get("task", {})}}
    return dict(Fingerprint.of(config).inputs)


def test_every_file_of_the_packaged_model_that_decides_an_answer_is_in_it(tmp_path):
    folder = tmp_path / CHECKPOINT
    folder.mkdir(parents=True)
    for name in (*DECIDING, "README.md", "curve.csv"):
        (folder / name).write_text(name)
    before = Fingerprint.now(tmp_path)
    assert {f"{CHECKPOINT}/{name}" for name in DECIDING} == set(before.files)
    assert before.files.keys() <= Fingerprint.now().files.keys()
    for name in DECIDING:
        edit(folder / name)
        after = Fingerprint.now(tmp_path)
        assert before.differences(after) == [f"mustdrop/{CHECKPOINT}/{name} changed"]
        assert after.id != before.id
        before = after
    edit(folder / "README.md")
    assert Fingerprint.now(tmp_path).id == before.id


def test_libraries_that_make_pixels_and_tokens_are_in_it():
    decide = {"torch", "transformers", "tokenizers", "pillow", "numpy", "datasets", "lmms-eval"}
    assert set(Fingerprint.now().versions) == decide
    assert "none" not in Fingerprint.now().versions.values()
    own = Fingerprint.of({"model": {"pretrained": str(PACKAGED)}, "benchmark": {"task": {}}})
    # with it, transformers takes another backend of the image processor
    assert set(own.versions) == {*decide, "torchvision"}


def test_a_model_of_the_users_own_enters_by_what_is_in_its_files(tmp_path):
    folder = tmp_path / "[a]*"
    shutil.copytree(PACKAGED, folder)
    before = inputs(model={"pretrained": str(folder)})
    assert set(before) == {f"model.pretrained/{name}" for name in DECIDING}
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    assert inputs(model={"pretrained": str(copied)}) == before
    for name in DECIDING:
        data, before_it = (folder / name).read_bytes(), (folder / name).stat()
        (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # as long as before
        os.utime(folder / name, ns=(before_it.st_atime_ns, before_it.st_mtime_ns))
        after = inputs(model={"pretrained": str(folder)})
        assert {key for key in before if before[key] != after[key]} == {f"model.pretrained/{name}"}
        before = after
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    assert "model.pretrained/pytorch_model.bin" in inputs(model={"pretrained": str(folder)})


def test_a_model_of_the_hub_enters_by_its_commit(monkeypatch):
    asked = []

    def fetched(name, revision, fetch):
        asked.append((name, revision, fetch))
        return Path("/cache/models--a--b/snapshots") / COMMIT

    monkeypatch.setattr(weights, "_fetched", fetched)
    assert inputs(model={"pretrained": "a/b", "revision": "main"}) == {
        "model.pretrained": f"commit {COMMIT}"
    }
    assert asked == [("a/b", "main", False)]


def test_what_is_not_there_makes_no_record_another_ones():
    lacking = {"pretrained": "/no/where"}
    assert inputs(model=lacking) == {"model.pretrained": MISSING}
    mark = Fingerprint.of({"model": lacking, "benchmark": {"task": {}}})
    assert not mark.differs("0" * 16)
    assert Fingerprint.now().differs("0" * 16)
    assert not Fingerprint.now().differs(Fingerprint.now().id)
    assert Fingerprint({}, {}).differences(mark)[0] == f"model.pretrained {MISSING}"
    assert inputs(task={"data": "/no/rows", "subset": None, "split": "test"}) == {
        "benchmark.data": MISSING
    }


def test_what_was_stored_is_read_again_old_ones_too():
    mark = Fingerprint({"a.py": "1"}, {"torch": "2"}, {"model.pretrained": "commit 3"})
    assert Fingerprint.stored(json.loads(json.dumps(mark.as_dict()))) == mark
    assert Fingerprint.stored({"files": {}, "versions": {}}) == Fingerprint({}, {})
    other = Fingerprint({"a.py": "1"}, {"torch": "2"}, {})
    assert other.id != mark.id and mark.differences(other) == ["model.pretrained gone"]


def test_rows_enter_by_what_is_in_their_files_those_of_pictures_too(tmp_path):
    subset = "testdev_balanced_instructions"
    root = write_benchmark("gqa", tmp_path, subset, "testdev")
    task = {"data": str(root), "subset": subset, "split": "testdev"}
    before = inputs(task=task)
    assert len(before) == 2 and all(name.startswith("benchmark.data/") for name in before)
    for name in (subset, "testdev_balanced_images"):
        rows = ROWS["gqa"](name)
        write(rows[::-1], root / name / "testdev-00000-of-00001.parquet")
        after = inputs(task=task)
        assert [key for key in before if before[key] != after[key]] == [
            f"benchmark.data/{name}/testdev-00000-of-00001.parquet"
        ]
        before = after


def test_rows_that_were_changed_are_read_anew_whatever_their_time(tmp_path):
    path = tmp_path / "test.parquet"
    for count in (4, 2):
        write(ROWS["pope"]("")[:count], path)
        os.utime(path, ns=(0, 0))
        assert len(load_rows(str(tmp_path), None, "test")) == count


def safetensors(path, tensors, size):
    """A file with a header and nothing but zeros behind it, which take no disk."""
    each = size // tensors
    header = json.dumps(
        {
            f"layer.{n:04}": {
                "dtype": "U8", "shape": [each], "data_offsets": [n * each, (n + 1) * each],
            }
            for n in range(tensors)
        }
    ).encode()  # fmt: skip
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + tensors * each)
    return 8 + len(header), each


def test_a_large_checkpoint_is_hashed_in_less_than_a_second(tmp_path):
    safetensors(tmp_path / "model.safetensors", 700, 14 << 30)
    start = time.process_time()
    content_hash(tmp_path / "model.safetensors")
    assert time.process_time() - start < 1


def test_of_a_large_file_header_size_and_blocks_of_every_tensor_are_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "WHOLE", 1000)
    path = tmp_path / "model.safetensors"
    start, each = safetensors(path, 5, 5 << 16)
    seen = {content_hash(path)}
    for tensor in range(5):
        for at in (0, each // 2, each - 1):  # first, middle and last of each tensor
            with path.open("r+b") as file:
                file.seek(start + tensor * each + at)
                file.write(b"\1")
            seen.add(content_hash(path))
    assert len(seen) == 1 + 5 * 3
    path.write_bytes(path.read_bytes().replace(b"layer.0003", b"layer.0009"))
    seen.add(content_hash(path))
    assert len(seen) == 2 + 5 * 3
    other = tmp_path / "rows.parquet"
    monkeypatch.setattr(content, "TAIL", 100)
    hashes, size = set(), 8 << 20
    for data in (b"\0" * size, b"\0" * (size + 1), b"\0" * size + b"\1"):
        other.write_bytes(data)
        hashes.add(content_hash(other))
    assert len(hashes) == 3


def test_a_half_finished_run_never_mixes_two_models_or_two_data_sets(tmp_path, capsys):
    """Nor does one process that ran the first model answer with it for the second."""
    model, rows = tmp_path / "model", tmp_path / "rows"
    shutil.copytree(PACKAGED, model)
    write(ROWS["pope"](""), rows / "test.parquet")

    def go(limit, *more):
        return run(
            composed(
                "model=pocket", f"model.pretrained={model}", "benchmark=pope", "method=vanilla",
                f"benchmark.data={rows}", f"output_root={tmp_path / 'out'}", "batch_size=4",
                "benchmark.task.max_new_tokens=1", f"benchmark.limit={limit}", *more,
            )
        )  # fmt: skip

    first, file = go(1), rows / "test.parquet"
    assert go(1) == first and "by other" not in capsys.readouterr().out
    asked = file.read_bytes()
    write(ROWS["pope"]("")[::-1], file)
    assert go(1) == first
    assert "by other code, weights or rows; force=true" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"1 samples of other.*benchmark\.data/rows/test\.parquet"):
        go(2)
    file.write_bytes(asked)
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("USER: ", ""))
    with pytest.raises(ValueError, match=r"model\.pretrained/chat_template\.jinja changed"):
        go(2)
    assert go(2, "force=true")["fingerprint"] != first["fingerprint"]
    lengths = [
        json.loads(path.read_text().splitlines()[0])["prompt_tokens"]
        for path in sorted(tmp_path.rglob("samples.jsonl*"))
    ]
    assert len(set(lengths)) == 2, "the model in memory was not that of the files"


@pytest.mark.parametrize(
    "name",
    ["[old]", "gqa*", "g?a", "{a,b}", "**", "~x", "hf:x", "a%20b", "it's", " lead", "a\nb", "%D%"],
)
def test_the_name_of_a_folder_is_a_name(name, tmp_path, monkeypatch):
    one, other = ROWS["pope"]("")[:1], ROWS["pope"]("")
    write(other, tmp_path / "gqa1" / "test.parquet")
    write(other, tmp_path / "gaa" / "test.parquet")
    (tmp_path / name).mkdir()
    write(one, tmp_path / "plain.parquet")
    shutil.copy(tmp_path / "plain.parquet", tmp_path / name / "test.parquet")
    assert len(load_rows(str(tmp_path / name), None, "test")) == 1
    monkeypatch.chdir(tmp_path)
    if not name.startswith("~"):
        assert len(load_rows(name, None, "test")) == 1


def test_names_of_subsets_and_splits_are_names_too(tmp_path):
    write(ROWS["pope"]("")[:1], tmp_path / "s1" / "test-0.parquet")
    write(ROWS["pope"](""), tmp_path / "s2" / "test_more-0.parquet")
    assert row_files.row_files(str(tmp_path), "s1", "test") == [tmp_path / "s1/test-0.parquet"]
    for subset, split in (("s*", "test"), ("s[1]", "test"), ("s1", "t*"), ("s1", "tes[t]")):
        with pytest.raises(ValueError, match="no rows of split"):
            row_files.row_files(str(tmp_path), subset, split)
    with pytest.raises(ValueError, match="no rows of split test"):  # another split's file
        row_files.row_files(str(tmp_path), "s2", "test")
    with pytest.raises(ValueError, match="there is no folder ~no-such-user/rows"):
        row_files.row_files("~no-such-user/rows/x", None, "test")


def test_hub_patterns_match_the_names_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(row_files, "_fetched", lambda name, patterns, fetch: asked.append(patterns))
    with pytest.raises(TypeError):
        row_files.row_files("a/b", "s[1]*", "t?")
    assert asked == [("s[[]1][*]/t[?]-*.parquet",)]


@pytest.mark.parametrize("name", ["a::b", "$HOME"])
def test_a_name_that_the_library_of_rows_cannot_take_is_refused_in_words(name, tmp_path):
    (tmp_path / name).mkdir()
    write(ROWS["pope"](""), tmp_path / "plain.parquet")
    shutil.copy(tmp_path / "plain.parquet", tmp_path / name / "test.parquet")
    with pytest.raises(ValueError, match="rename the folder"):
        load_rows(str(tmp_path / name), None, "test")


def test_a_run_and_its_log_live_in_a_folder_of_any_name(tmp_path):
    """loguru takes braces in a file's name for fields of its own."""
    root = tmp_path / "[x] {time} {old} *"
    run(
        composed(
            "method=vanilla", "benchmark.limit=1",
            f"output_root='{root}'",
        )
    )  # fmt: skip
    assert len(list(root.rglob("run.log"))) == len(list(root.rglob("record.json"))) == 1
    assert list(tmp_path.iterdir()) == [root]


def test_lmms_evals_command_line_takes_a_folder_of_any_name():
    given = overrides({"pretrained": "[x]", "model": "pocket", "method": "vanilla"})
    assert resolved(composed(*given))["model"]["pretrained"] == "[x]"
