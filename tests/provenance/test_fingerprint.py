"""Code, model and rows enter a run's fingerprint by content; no run mixes two of any."""

import ast
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
from standins import ROWS, write, write_benchmark

from experiments.run import run
from mustdrop.cli.lmms_eval_model import overrides
from mustdrop.evaluation.tasks.rows import load_rows
from mustdrop.pocket import CHECKPOINT as PACKAGED
from mustdrop.presets.compose import composed, resolved
from mustdrop.presets.folders import conf_dir
from mustdrop.provenance import checkpoint_files as weights
from mustdrop.provenance import content, row_files
from mustdrop.provenance import fingerprint as found
from mustdrop.provenance.content import content_hash
from mustdrop.provenance.fingerprint import code_hashes, library_versions, run_fingerprint
from mustdrop.provenance.syntax import syntax_hash
from mustdrop.runs.fingerprint import MISSING, Fingerprint

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
    return dict(run_fingerprint(config).inputs)


def fingerprint(*overrides):
    return run_fingerprint(resolved(composed(*overrides)))


def test_every_file_of_the_packaged_model_that_decides_an_answer_is_in_it(tmp_path, monkeypatch):
    folder = tmp_path / "mustdrop" / "pocket" / "checkpoint"
    folder.mkdir(parents=True)
    for name in (*DECIDING, "README.md", "curve.csv"):
        (folder / name).write_text(name)
    monkeypatch.setitem(found.PACKAGED_FOLDERS, "packaged", folder)
    monkeypatch.setattr(found, "PACKAGE", tmp_path / "mustdrop")
    before = fingerprint()
    inside = {name for name in before.files if name.startswith("mustdrop/pocket/checkpoint/")}
    assert inside == {f"mustdrop/pocket/checkpoint/{name}" for name in DECIDING}
    for name in DECIDING:
        edit(folder / name)
        after = fingerprint()
        assert before.differences(after) == [f"mustdrop/pocket/checkpoint/{name} changed"]
        assert after.id != before.id
        before = after
    edit(folder / "README.md")
    assert fingerprint().id == before.id


def test_the_packaged_model_is_nothing_to_a_run_of_another_model():
    other = fingerprint("model=pocket", f"model.pretrained={PACKAGED}")
    assert not [name for name in other.files if "checkpoint/" in name]
    assert len(other.inputs) == len(DECIDING)


def test_libraries_that_make_pixels_and_tokens_are_in_it():
    decide = {"torch", "transformers", "tokenizers", "pillow", "numpy", "datasets", "lmms-eval"}
    assert set(library_versions()) == decide == set(fingerprint().versions)
    assert "none" not in library_versions().values()
    own = run_fingerprint({"model": {"pretrained": str(PACKAGED)}, "benchmark": {"task": {}}})
    # images are read with PIL everywhere, so it makes no difference whether torchvision is there
    assert set(own.versions) == decide


@pytest.mark.parametrize(
    ("overrides", "modules"),
    [
        ((), ("prefill/dual_attention", "vision/local_merge", "key_tokens/cls_attention")),
        (("method=fastv", "budget=t128"), ("prefill/fastv",)),
        (("method=vanilla", "image=wrong"), ("evaluation/image_controls",)),
        (
            ("benchmark=pocket_pope", "method=vanilla"),
            ("evaluation/tasks/pocket_pope", "pocket/questions"),
        ),
    ],
)
def test_the_code_of_a_run_is_what_it_imports(overrides, modules):
    files = set(code_hashes(resolved(composed(*overrides))))
    always = ("engine/session", "engine/cache", "models/llava", "reduction", "cost", "functional")
    assert {f"mustdrop/{name}.py" for name in (*modules, *always)} <= files
    for name in ("prefill/sparsevlm", "vision/tome", "runs/writer", "cli/lmms_eval_model"):
        assert f"mustdrop/{name}.py" not in files
    assert ("mustdrop/prefill/fastv.py" in files) == ("method=fastv" in overrides)


def test_every_module_that_a_run_loads_of_ours_is_in_it_or_decides_nothing(tmp_path):
    """Python's own list of loaded modules, after a run, beside what the syntax trees say."""
    script = f"""
import sys
from experiments.run import run
from mustdrop.presets.compose import composed, resolved
from mustdrop.presets.folders import conf_dir
from mustdrop.provenance.fingerprint import ASIDE, code_hashes
cfg = composed("benchmark.limit=1", "output_root={tmp_path}")
run(cfg)
names = [name for name in sys.modules if name.startswith("mustdrop.")]
files = {{sys.modules[name].__file__.partition("/mustdrop/")[2] for name in names
         if not name.startswith(ASIDE) and hasattr(sys.modules[name], "__path__") is False}}
hashed = {{name.removeprefix("mustdrop/") for name in code_hashes(resolved(cfg))}}
print("missing", sorted(files - hashed))
"""
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    missing = told.stdout.splitlines()[-1].removeprefix("missing ")
    # what composes a config and checks a budget decides no answer: the config is in the run's key;
    # neither does what a tracker calls the results of a profile
    allowed = {"openmp.py", "exports.py", "presets/", "evaluation/plugin.py"}
    allowed.add("profiling/break_even.py")
    assert all(name.startswith(tuple(allowed)) for name in ast.literal_eval(missing)), missing


def test_comments_docstrings_and_layout_change_nothing(tmp_path):
    path, hashes = tmp_path / "a.py", set()
    for code in (
        "def f(x):\n    return x + 1\n",
        '"""A module."""\n\ndef f(x):\n    """A function."""\n    # a comment\n    return x + 1\n',
        "def f(\n    x,\n):\n    return (\n        x + 1\n    )\n",
    ):
        path.write_text(code)
        hashes.add(syntax_hash(path))
    assert len(hashes) == 1
    for code in (
        "def f(x):\n    return x + 2\n",
        "def f(x):\n    return x - 1\n",
        "def f(y):\n    return y + 1\n",
    ):
        path.write_text(code)
        hashes.add(syntax_hash(path))
    assert len(hashes) == 4


def test_strategies_of_the_users_own_are_code_of_the_run(tmp_path, monkeypatch):
    package = tmp_path / "their_methods"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__", "deep/__init__"):
        (package / f"{name}.py").write_text("")
    (package / "keep.py").write_text("from .deep import scores\n\n\nclass Keep:\n    pass\n")
    (package / "deep" / "scores.py").write_text(
        "def late():\n    from their_methods import other\n"
    )
    (package / "other.py").write_text("x = 1\n")
    (package / "unused.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = resolved(composed())
    config["prefill"] = {"_target_": "their_methods.keep.Keep"}
    files = code_hashes(config)
    theirs = {name for name in files if name.startswith("their_methods/")}
    assert theirs == {
        f"their_methods/{name}.py"
        for name in ("keep", "deep/__init__", "deep/scores", "__init__", "other")
    }
    (package / "other.py").write_text("x = 2\n")
    after = code_hashes(config)
    assert [name for name in files if files[name] != after[name]] == ["their_methods/other.py"]


def test_a_new_module_changes_no_fingerprint(tmp_path):
    """A method that is added leaves all other runs valid."""
    root = tmp_path / "copy"
    shutil.copytree(
        Path(found.__file__).parents[1],
        root / "mustdrop",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copytree(conf_dir(), root / "conf")
    script = (
        "from mustdrop.presets.compose import composed, resolved;"
        "from mustdrop.provenance.fingerprint import run_fingerprint;"
        "print(run_fingerprint(resolved(composed())).id)"
    )

    def identity():
        return subprocess.run(
            [sys.executable, "-c", script], cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    before = identity()
    (root / "mustdrop" / "prefill" / "keep_first.py").write_text("x = 1\n")
    font = root / "mustdrop" / "pocket" / "font.py"
    font.write_text("# a comment\n" + font.read_text())
    assert identity() == before
    session = root / "mustdrop" / "engine" / "session.py"
    session.write_text(session.read_text() + "\nX = 1\n")
    assert identity() != before


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
    assert {*asked} == {("a/b", "main", False)}


def test_what_is_not_there_makes_no_record_another_ones():
    lacking = {"pretrained": "/no/where"}
    assert inputs(model=lacking) == {"model.pretrained": MISSING}
    mark = run_fingerprint({"model": lacking, "benchmark": {"task": {}}})
    assert not mark.differs("0" * 16)
    assert fingerprint().differs("0" * 16)
    assert not fingerprint().differs(fingerprint().id)
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
    monkeypatch.setattr(row_files, "_fetched", lambda name, pattern, fetch: asked.append(pattern))
    with pytest.raises(TypeError):
        row_files.row_files("a/b", "s[1]*", "t?")
    assert asked == ["s[[]1][*]/t[?]-*.parquet"]


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
