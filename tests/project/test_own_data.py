"""The three commands of docs/own_data.md lead from a folder of questions to a table and a page."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "own_data.md"


def commands() -> list[list[str]]:
    """The commands of the first block of the page."""
    block = PAGE.read_text().split("```bash\n")[1].partition("```")[0]
    return [shlex.split(line) for line in block.splitlines()]


@pytest.mark.slow
def test_the_commands_of_the_page_make_a_table_and_a_page(tmp_path):
    folder = tmp_path / "mine"
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for number, color in enumerate(("red", "blue", "green")):
        Image.new("RGB", (48, 40), color).save(folder / "pictures" / f"{number}.png")
        question = {"question": "What color is it?", "answer": color}
        rows.append({"image": f"pictures/{number}.png", **question})
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    typed = commands()
    assert [words[:2] for words in typed] == [
        ["mustdrop", "run"], ["mustdrop", "tables"], ["mustdrop", "report"],
    ]  # fmt: skip
    printed = []
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for words in typed:
        words = [word.replace("/path/to/folder", str(folder)) for word in words]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        printed.append(done.stdout)
    table = printed[1]
    assert all(name in table for name in ("mine", "vanilla", "fastv", "random", "t128"))
    assert (tmp_path / "outputs" / "run" / "report.html").is_file()
    samples = [*(tmp_path / "outputs" / "run").rglob("samples.jsonl")]
    assert len(samples) == 3 and all("What color is it?" in file.read_text() for file in samples)
