"""One card per method preset of conf/method: idea, equation, fields, picture, command.

All text comes from the comments of the yaml files and the docstrings of the strategies, so a new
method gets its card without a change here.
"""

import re
from dataclasses import dataclass, fields

import mkdocs_gen_files
import yaml
from docstrings import explanation
from omegaconf import OmegaConf
from parity import line as parity_line

from experiments.sharing.pictures import BUDGET, INDEX, SPLIT, Kept, built, kept, setting
from mustdrop import TokenDropper
from mustdrop.presets.comments import preset_comment
from mustdrop.presets.folders import preset_file, preset_names
from mustdrop.presets.from_budget import STAGES

TITLES = {
    "vision": "Stage 1, vision encoder",
    "key_tokens": "Stage 1b, key tokens",
    "prefill": "Stage 2, prefill",
    "decode": "Stage 3, decoding",
}
GROUPS = ("Several stages", "Vision encoder", "Prefill", "Controls and bounds")
# Model, benchmark and budget of a method that chooses among the frames of a video.
VIDEOS = ("model=video_llava_7b", "benchmark=msvd_qa", "budget=50%")


@dataclass(frozen=True)
class Method:
    """A method preset on the embedded model.

    Attributes:
        name: Name of the preset.
        comment: Comment at the top of its yaml file, without the source.
        source: Paper, code or reason that the comment names; empty if it names none.
        options: Stage -> name of the preset of its strategy.
        floor: Least executed average of the method, if the budget is below it.
        dropper: The method at the budget, or at its floor.
    """

    name: str
    comment: str
    source: str
    options: dict[str, str]
    floor: float | None
    dropper: TokenDropper

    @property
    def group(self) -> str:
        """Heading below which the card stands."""
        if len(self.options) > 1:
            return GROUPS[0]
        if not self.options or re.match(r"ours|control", self.source):
            return GROUPS[3]
        return GROUPS[1] if "vision" in self.options else GROUPS[2]


def method(name: str) -> Method:
    """Read a method preset and build it at the budget."""
    comment, source = preset_comment(preset_file("method", f"{name}.yaml"))
    dropper, floor = built(name)
    raw = yaml.safe_load(preset_file("method", f"{name}.yaml").read_text(encoding="utf-8"))
    chosen = {
        key.removeprefix("override /"): option
        for entry in raw.get("defaults", ())
        for key, option in entry.items()
    }
    options = {stage: chosen[stage] for stage in STAGES if stage in chosen}
    return Method(name, comment, source, options, floor, dropper)


def overrides(name: str) -> list[str]:
    """Arguments of the command that runs a method."""
    return [f"method={name}", f"budget=t{BUDGET}"]


def page() -> str:
    """An overview of all methods, then their cards."""
    methods = [method(name) for name in preset_names("method")]
    question = setting()[1]
    lines = [
        f"The pictures show question {INDEX} of the split `{SPLIT}`: *{question.question}* "
        f"(answer: {question.answer}). Black lines mark the objects that the question is about.",
        "",
        "| method | stages | source |",
        "| --- | --- | --- |",
    ]
    for group in GROUPS:
        for item in methods:
            if item.group == group:
                stages = ", ".join(stage.replace("_", " ") for stage in item.options) or "none"
                lines.append(f"| [{item.name}](#{item.name}) | {stages} | {item.source or '–'} |")
    seen: set[str] = set()
    for group in GROUPS:
        lines += ["", f"## {group}", ""]
        lines += [card(item, seen) for item in methods if item.group == group]
    return "\n".join(lines)


def card(item: Method, seen: set[str]) -> str:
    """Card of one method; strategies explained for the first time are unfolded.

    Args:
        item: The method.
        seen: Classes of strategies that an earlier card explained; extended in place.
    """
    prefill = item.dropper.prefill
    of_videos = prefill is not None and prefill.videos_only
    shown, counts = [], "none, as it chooses among the frames of a video"
    command = f"mustdrop run {' '.join(VIDEOS)} method={item.name}"
    if not of_videos:
        command = "mustdrop run " + " ".join(overrides(item.name))
        picture = kept(item.dropper)
        counts = _counts(item, picture)
        with mkdocs_gen_files.open(f"pictures/{item.name}.png", "wb") as file:
            file.write(picture.png)
        path = f"pictures/{item.name}.png"
        shown = [f"![Patches that {item.name} keeps]({path}){{ align=right width=190 }}", ""]
    lines = [
        f"### {item.name} {{ #{item.name} }}",
        "",
        item.comment,
        "",
        *shown,
        f"- **Source:** {item.source or 'none, the unchanged model'}",
        f"- **Acts:** {acts(item.dropper)}",
        f"- **Picture:** {counts}",
        f"- **Positions:** {positions(item.dropper)}",
        f"- **Parity:** {parity_line([getattr(item.dropper, stage) for stage in item.options])}",
        f"- **Command:** `{command}`",
        "",
    ]
    for stage, option in item.options.items():
        strategy = getattr(item.dropper, stage)
        kind = type(strategy)
        mark = "???" if kind.__name__ in seen else "???+"
        seen.add(kind.__name__)
        block = "\n".join(_strategy(stage, option, strategy))
        lines += [f'{mark} note "{TITLES[stage]}: {kind.__name__}"', ""]
        lines += [f"    {line}" if line else "" for line in block.splitlines()]
        lines.append("")
    return "\n".join(lines)


def acts(dropper: TokenDropper) -> str:
    """Where a method acts on the embedded model."""
    parts = []
    if dropper.vision is not None:
        verb = "inside" if dropper.vision.inside_block else "after"
        words = {
            "features": "after the encoder, before the projector",
            "projected": "behind the projector",
        }
        places = dropper.vision.places
        blocks = [str(item) for item in places if isinstance(item, int)]
        parts += [words[item] for item in places if isinstance(item, str)]
        if blocks:
            plural = "s" if len(blocks) > 1 else ""
            parts.append(f"{verb} encoder block{plural} {', '.join(blocks)}")
    if dropper.key_tokens is not None:
        received = dropper.cls_attention == "received"
        basis = ", by the attention that they receive" if received else ""
        parts.append(f"marks key tokens behind the encoder{basis}")
    if dropper.prefill is not None:
        layers = [layer for layer in dropper.prefill.layers if layer >= 0]
        if -1 in dropper.prefill.layers:
            parts.append("at the language model's input")
        if layers:
            plural = "s" if len(layers) > 1 else ""
            parts.append(f"after decoder layer{plural} {', '.join(map(str, layers))} of 0 to 11")
    if dropper.decode is not None:
        parts.append("in the KV cache, once, after the prefill")
    return "; ".join(parts) or "nowhere"


def positions(dropper: TokenDropper) -> str:
    """Rules for rotary positions that the preset sets."""
    rules = []
    if dropper.prefill is not None and any(layer >= 0 for layer in dropper.prefill.layers):
        rules.append(f"{dropper.positions} between layers")
    if dropper.vision is not None or (dropper.prefill and -1 in dropper.prefill.layers):
        rules.append(f"{dropper.vision_positions} at the input")
    if dropper.decode_positions != "continue":
        rules.append(f"{dropper.decode_positions} while decoding")
    return ", ".join(rules) or "unchanged"


def _counts(item: Method, picture: Kept) -> str:
    entered = picture.entered
    runs = [0, *(i for i in range(1, len(entered)) if entered[i] != entered[i - 1])]
    first = "every layer" if len(runs) == 1 else "layer 0"
    later = "".join(f", {entered[i]} from layer {i} on" for i in runs[1:])
    counts = f"{entered[0]} tokens in {first}{later}"
    text = f"{counts}; executed average {picture.average:.1f} at a budget of {BUDGET}"
    if item.floor is not None:
        return (
            f"**this method cannot reach {BUDGET} tokens on this model**; at its floor of "
            f"{item.floor:g} it keeps {counts}"
        )
    return text if item.options else counts


def _strategy(stage: str, option: str, strategy: object) -> list[str]:
    """Lines that explain one strategy of a method."""
    parts = explanation(type(strategy))
    comment, source = preset_comment(preset_file(stage, f"{option}.yaml"))
    lines = [parts.summary, "", parts.body, "", f"*Source:* {parts.source}", ""]
    if parts.differs:
        lines += [f"*Differs from the authors' code:* {parts.differs}", ""]
    lines += [f"*Preset* `{stage}={option}`: {comment} Source: {source}", ""]
    raw = OmegaConf.to_container(OmegaConf.load(preset_file(stage, f"{option}.yaml")))
    assert isinstance(raw, dict)
    lines += ["| field | preset | here | meaning |", "| --- | --- | --- | --- |"]
    for field in fields(strategy):  # type: ignore[arg-type]
        here = getattr(strategy, field.name)
        meaning = parts.attributes.get(field.name, "").replace("|", "\\|")
        lines.append(
            f"| `{field.name}` | {_written(raw.get(field.name))} | {_value(here)} | {meaning} |"
        )
    return lines


def _written(value: object) -> str:
    """Value of a field in its yaml file, in words where it is computed."""
    if isinstance(value, str) and (tuned := re.fullmatch(r"\$\{tuned:\w+,\w+(?:,(.*))?\}", value)):
        return tuned[1] or "calibrated"
    if isinstance(value, str) and (depth := re.fullmatch(r"\$\{at_depth:(.*),(\d+)\}", value)):
        return f"{depth[1].strip('[]')} of {depth[2]}"
    if isinstance(value, str) and value.startswith("${"):
        return "from the budget" if "budget" in value else f"`{value}`"
    return _value(value)


def _value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(_value(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
