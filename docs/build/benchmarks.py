"""One card per benchmark of conf/benchmark: settings, published inputs, what differs, odd rows.

All text comes from the yaml files and their comments, so a new benchmark gets its card without a
change here. Knows no models and no records.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mustdrop.evaluation.lmms_eval_api import load_yaml_config, tasks
from mustdrop.presets.folders import preset_file, preset_names

SECTIONS = ("Published", "Differs", "Rows")
NOT_LISTED = ("pocket", "custom")  # generated questions, and a user's own
PAPER = {"gqa", "mmbench", "mme", "vizwiz", "scienceqa", "vqav2", "textvqa", "pope"}
VIDEOS, SHORT, LONG = "Videos", "Images, the benchmarks of LLaVA-1.5", "Images, other benchmarks"
LINK = re.compile(r"huggingface\.co/datasets/[\w./-]*\w")
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{5})")
MARK = re.compile(r"(?:^|(?<= ))(Published|Differs|Rows): ")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark preset.

    Attributes:
        name: Name of the preset.
        summary: Comment at the top of its yaml, up to the first section.
        sections: Name of a section of the comment -> its text.
        fields: The yaml itself.
    """

    name: str
    summary: str
    sections: dict[str, str]
    fields: dict[str, Any]

    @property
    def group(self) -> str:
        """Heading below which the benchmark stands."""
        task = self.fields["task"]
        if "videos" in task:
            return VIDEOS
        return SHORT if self.name in PAPER else LONG

    @property
    def suffix(self) -> str:
        """Text that follows a question."""
        task = self.fields["task"]
        if "stock" not in task:
            return task.get("post_prompt", "")
        given = load_yaml_config(str(Path(tasks.__file__).parent / task["stock"]), mode="simple")
        words = given.get("lmms_eval_specific_kwargs", {}).get("default", {})
        return words.get("post_prompt", "")


def benchmark(name: str) -> Benchmark:
    """Read a benchmark preset."""
    text = preset_file("benchmark", f"{name}.yaml").read_text(encoding="utf-8")
    lines = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    summary, *parts = MARK.split(" ".join(lines))
    sections = dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))
    return Benchmark(name, summary.strip(), sections, yaml.safe_load(text))


def listed() -> list[Benchmark]:
    """All benchmarks that papers use."""
    names = [name for name in preset_names("benchmark") if not name.startswith(NOT_LISTED)]
    return [benchmark(name) for name in names]


def page() -> str:
    """A table of each group, and the cards of its benchmarks."""
    lines: list[str] = []
    for group in (SHORT, LONG, VIDEOS):
        members = [item for item in listed() if item.group == group]
        if not members:
            continue
        lines += [f"## {group}", "", "| benchmark | rows | suffix | new tokens | score |"]
        lines += ["| --- | --- | --- | --- | --- |", *map(row, members), ""]
        for item in members:
            lines += [*card(item), ""]
    return "\n".join(lines)


def row(item: Benchmark) -> str:
    """Line of a benchmark in the table of its group."""
    fields, task = item.fields, item.fields["task"]
    suffix = " ".join(f"`{line}`" for line in item.suffix.splitlines() if line.strip()) or "none"
    cells = (
        f"[{item.name}](#{item.name})", f"`{fields['data']}`, {task['split']}", suffix,
        str(task["max_new_tokens"]), f"`{fields['metric']}`",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def card(item: Benchmark) -> list[str]:
    """Lines of a benchmark's card."""
    sections = [f"- **{name}:** {linked(item.sections[name])}" for name in SECTIONS]
    return [f"### {item.name} {{ #{item.name} }}", "", linked(item.summary), "", *sections]


def linked(text: str) -> str:
    """Text with links to the papers and data sets that it names."""
    text = LINK.sub(lambda match: f"[{match[0]}](https://{match[0]})", text)
    return ARXIV.sub(lambda match: f"[{match[0]}](https://arxiv.org/abs/{match[1]})", text)
