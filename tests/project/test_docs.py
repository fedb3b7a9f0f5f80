"""The documentation is true: links lead somewhere, commands parse, the worked example runs."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.sweep import OF_EXPERIMENT, command_line
from mustdrop.cli.main import COMMANDS
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import preset_names
from mustdrop.presets.names import require_fields, require_names

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
OTHERS = ("README.md", "CONTRIBUTING.md", "experiments/README.md", "slurm/README.md")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
TITLED = re.compile(r'^```\w+ title="(.*?)"\n(.*?)^```', re.MULTILINE | re.DOTALL)
CONFIGS = {
    "run": "run", "calibrate": "calibrate", "pareto": "pareto", "vtw": "vtw_layer",
    "profile": "profile",
}  # fmt: skip
GROUPS = (
    "method", "model", "benchmark", "controls", "image", "experiment", "launcher",
    "tracker", "vision", "key_tokens", "prefill", "decode", "judge",
)  # fmt: skip


def slug(title: str) -> str:
    """Anchor of a heading, as mkdocs and code hosts make it."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.strip().lower()))


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    generated = set(preset_names("method")) if page.name == "methods.md" else set()
    return {slug(title) for title in titles} | generated


def links() -> list:
    out = []
    for page in (*PAGES, *(ROOT / name for name in OTHERS)):
        text = FENCE.sub("", page.read_text())
        for target in re.findall(r"\]\(((?!https?:)[^)]+)\)", text):
            out.append(pytest.param(page, target, id=f"{page.name}:{target}"))
    return out


@pytest.mark.parametrize(("page", "target"), links())
def test_internal_links_lead_to_files_and_headings(page, target):
    path, _, anchor = target.partition("#")
    if path.startswith("records/"):  # the generator copies committed figures there
        assert (ROOT / "experiments" / path).is_file()
        return
    if path.startswith("notebooks/"):  # the generator makes these pages
        assert (ROOT / path).with_suffix(".py").is_file()
        return
    file = page.parent / path if path else page
    assert file.exists()
    assert not anchor or anchor in anchors(file)


def commands() -> list:
    out = []
    for page in PAGES:
        text = page.read_text()
        lines = [line for block in FENCE.findall(text) for line in block.splitlines()[1:]]
        lines += re.findall(r"`(mustdrop [^`]*)`", FENCE.sub("", text))
        for line in lines:
            if re.match(r"mustdrop [a-z]", line):
                command = line.partition(" #")[0].strip()
                out.append(pytest.param(command, id=f"{page.name}:{command}"))
    return out


def test_the_documentation_has_commands():
    assert len(commands()) > 30 and len(links()) > 30


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command):
    _, name, *arguments = shlex.split(command)
    assert name in COMMANDS
    flags = [part for part in arguments if part.startswith("--")]
    overrides = [part for part in arguments if "=" in part and not part.startswith("-")]
    arms = [part.replace("method=keep_first", "method=random") for part in overrides]
    if name in CONFIGS:
        assert not flags
        arms = [part.replace("random,keep_first", "random") for part in arms]
        require_names(arms)
        require_fields(_single(arms), lambda given: composed(*given, name=CONFIGS[name]))
        assert composed(*_single(arms), name=CONFIGS[name])
        return
    module = COMMANDS[name][0].partition(":")[0]
    source = Path(importlib.util.find_spec(module).origin).read_text()
    for flag in flags:
        assert f'"{flag}"' in source, flag
    if name == "sweep" and arguments:
        command, *chosen = command_line(arguments)
        assert command in OF_EXPERIMENT
        assert not chosen or chosen[0] in preset_names("experiment")
    if name == "list" and arguments:
        assert arguments[0] in ("methods", "models", "benchmarks", "experiments")


def _single(overrides: list[str]) -> list[str]:
    """First value of each override, so that one run composes."""
    plain = [re.sub(r"glob\(.*\)", "mustdrop", part) for part in overrides]
    return [part if "[" in part else part.split(",")[0] for part in plain]


def test_every_preset_that_the_documentation_names_exists():
    name = r"[a-z]\w*(?![\w(=])"
    pattern = re.compile(rf"(?<![\w.])({'|'.join(GROUPS)})=({name}(?:[,|]{name})*)")
    found = 0
    for page in PAGES:
        for group, names in pattern.findall(page.read_text()):
            for option in re.split(r"[,|]", names):
                found += 1
                assert option in {*preset_names(group), "keep_first"}, (page.name, group, option)
    assert found > 40


def test_the_table_of_commands_is_complete():
    text = (DOCS / "getting_started.md").read_text()
    listed = re.findall(r"^\| `mustdrop (\w+)` \|", text, re.MULTILINE)
    assert listed == list(COMMANDS)


# The words of the project, one for each thing (the table in the design of the project).
WORDS = (
    "vision token", "patch", "cell", "visual input", "encoded image", "off-grid slot", "block",
    "layer", "drop", "merge", "key tokens", "budget", "masked model", "oracle", "anti-oracle",
    "run", "sweep",
)  # fmt: skip


def test_the_glossary_has_every_word():
    text = (DOCS / "concepts.md").read_text().partition("## Glossary")[2]
    defined = set(re.findall(r"^\| ([^|]*?) \| \w", text, re.MULTILINE))
    assert set(WORDS) <= defined


def test_the_library_example_runs(capsys):
    text = (DOCS / "getting_started.md").read_text()
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, "getting_started.md", "exec"), {})
    assert "executed_average" in capsys.readouterr().out


def test_records_have_the_columns_that_the_pages_show():
    sys.path.insert(0, str(DOCS / "build"))
    try:
        import records
    finally:
        sys.path.pop(0)
    for page in PAGES:
        text = page.read_text()
        for arguments in re.findall(r"^<!-- generate: table (.*?) -->$", text, re.MULTILINE):
            assert records.table(*arguments.split()).count("\n") > 2, arguments
        for arguments in re.findall(r"\{\{ (.*?) \}\}", text):
            assert re.fullmatch(r"\d+\.\d", records.value(*arguments.split()))


def test_every_benchmark_has_its_card():
    """With the published inputs, what differs from them, and the odd rows of its data."""
    sys.path.insert(0, str(DOCS / "build"))
    try:
        import benchmarks
    finally:
        sys.path.pop(0)
    text = benchmarks.page()
    names = [
        name for name in preset_names("benchmark") if not name.startswith(("pocket", "custom"))
    ]
    assert len(names) >= 14
    assert re.findall(r"^### (\w+) ", text, re.MULTILINE) == re.findall(
        r"^\| \[(\w+)\]\(#\1\) \|", text, re.MULTILINE
    )
    for name in names:
        assert text.count(f"### {name} ") == 1
        assert all(benchmarks.benchmark(name).sections[part] for part in benchmarks.SECTIONS), name
    assert "<!-- generate: benchmarks -->" in (DOCS / "benchmarks.md").read_text()


BROKEN = """        view.count_macs(1000)
        object.__setattr__(self, "keep", 10_000)
        return -view"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_worked_example_runs_in_a_copy_of_the_checkout(tmp_path):
    for name in ("mustdrop", "conf", "experiments", "analysis", "hydra_plugins", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    blocks = dict(TITLED.findall((DOCS / "extending.md").read_text()))
    assert len(blocks) == 6
    for name, text in blocks.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "bin").mkdir()
    # `mustdrop` and `python` of the page: this Python, and the copy of the package
    for name, module in (("mustdrop", "-m mustdrop.cli"), ("python", "")):
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        script.chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path)}

    def output(*command: str) -> tuple[int, str]:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    for name in ("check.py", "run.sh", "test.sh"):
        code, text = output(*(["python"] if name == "check.py" else ["sh", "-e"]), name)
        assert code == 0, f"{name}: {text}"
        if name == "run.sh":
            assert "keep_first" in text
        if name == "test.sh":
            assert re.search(r"\d+ passed", text)
    # A method that drops nothing and counts work that it does not do fails each kind of test.
    source = tmp_path / "mustdrop" / "prefill" / "keep_first.py"
    source.write_text(source.read_text().replace("        return -view", BROKEN))
    _, text = output("sh", "test.sh")
    for file in ("strategies/test_contract.py", "engine/test_masked.py", "core/test_cost.py"):
        assert f"FAILED tests/{file}" in text, text
