"""Finished runs with the code that made them, and packs of them."""

import json
import zipfile
from pathlib import Path

from results import draws, write

from analysis.packs.archive import write_pack
from analysis.packs.contents import pack_files
from analysis.packs.private import PrivateTexts
from analysis.records.cells import load
from experiments.sharing.pack import method_texts

CODE = {
    "files": {"mustdrop/engine/session.py": "aaaaaaaaaaaa", "mustdrop/budget.py": "bbbbbbbbbbbb"},
    "versions": {"torch": "2.13.0+cpu", "transformers": "5.23.0"},
    "inputs": {"benchmark.data/data/test-0.parquet": "cccccccccccc"},
}
PRIVATE = PrivateTexts({}, Path("/home/anna"), "anna")


def shared_run(root, method, budget="t192", executed=192.0, scores=(1.0, 0.0) * 10, *, code=CODE,
               **more):  # fmt: skip
    """A finished run on disk whose status states its code."""
    folder = write(root, method, budget, executed, scores, **more)
    record = json.loads((folder / "record.json").read_text())
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    for line in lines:
        line["image"], line["prompt_tokens"] = f"picture{line['doc_id']}", 600
    if lines:
        tokens = [sum(line["vision_tokens"]) / 4 for line in lines]
        record["counts"]["executed_average"] = sum(tokens) / len(tokens)
    rewritten(folder, record, lines)
    status = {"state": "done", "fingerprint": record["fingerprint"], "code": code}
    (folder / "status.json").write_text(json.dumps(status))
    return folder


def rewritten(folder, record=None, lines=None):
    if record is not None:
        (folder / "record.json").write_text(json.dumps(record))
    if lines is not None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "samples.jsonl").write_text(text)


def changed_lines(folder, change):
    """Samples of a run, each changed by a function."""
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    for line in lines:
        change(line)
    rewritten(folder, lines=lines)


def packed(root, path, private=PRIVATE):
    """A pack of all runs under a folder, without the checks of the command."""
    cells = load(root)
    names = sorted({cell["method"] for cell in cells})
    write_pack(path, pack_files(cells, method_texts(names), "1.0", private))
    return path


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(path, change):
    """The same zip file with other contents."""
    files = contents(path)
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def one_run(root, name, method, budget="t192", executed=192.0, scores=None, change=None, **more):
    """A pack of one run; ``change`` gets the folder of the run before it is packed."""
    folder = shared_run(root / name, method, budget, executed, scores or draws(1, 20), **more)
    if change is not None:
        change(folder)
    return packed(root / name, root / f"{name}.zip")


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


def config_with(**parts):
    """A change that overrides parts of the config of a run."""

    def change(folder):
        record = record_of(folder)
        for part, values in parts.items():
            entry = record["config"][part]
            record["config"][part] = {**entry, **values} if isinstance(values, dict) else values
        rewritten(folder, record)

    return change


def line_with(doc, **values):
    """A change that overrides values of one sample."""

    def change(folder):
        changed_lines(folder, lambda line: line["doc_id"] == doc and line.update(values))

    return change


def other_metric(folder):
    rewritten(folder, {**record_of(folder), "metric": "other"})
    changed_lines(folder, lambda line: line.update(scores={"other": 1.0}))


def all_code(**parts):
    return {"code": {**CODE, **{part: {**CODE[part], **new} for part, new in parts.items()}}}
