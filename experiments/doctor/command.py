"""Check a model on a benchmark before large runs: prompts, images, numbers, answers and cost.

mustdrop doctor                                        # the embedded model, a minute
mustdrop doctor model=llava15_7b inputs=authors benchmark=gqa
mustdrop doctor model=qwen2_5_vl_7b benchmark=textvqa samples=200 device=cuda

Prints one page and writes it to <output_root>/doctor/<model>/<benchmark>/, with doctor.json and
pictures of what the vision encoder sees. Exit code 0 if nothing is wrong, 1 if something is.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from experiments import run as runs
from experiments.checks.run_checks import checked, require_count
from experiments.cli.hydra_program import run_hydra
from experiments.doctor.answers import accuracy, context, cost, methods, sound_answers
from experiments.doctor.exactness import exactness
from experiments.doctor.findings import Broken, Examination, Finding, finding_lines
from experiments.doctor.images import (
    blank,
    image_handling,
    normalisation,
    probe,
    save_picture,
    seen,
)
from experiments.doctor.machine import kernels, machine
from experiments.doctor.prompts import template
from experiments.doctor.rows import rows, scorable
from experiments.doctor.weights import end_token, weights
from mustdrop.evaluation.chat import pictures, read_document
from mustdrop.evaluation.frame_cache import VideoReader
from mustdrop.evaluation.lmms_eval_api import ChatMessages
from mustdrop.evaluation.model_inputs import prompt_inputs
from mustdrop.models import adapter_for
from mustdrop.presets.compose import composed
from mustdrop.profiling.device import Device
from mustdrop.runs.folder import read_samples, run_folder

FIELDS = ("samples", "few", "methods", "share")  # fields that a run does not have
EXACT_PROMPTS = 3
SAVED = "finished runs are kept, and the same command continues from there"


def examine(cfg: DictConfig, overrides: Sequence[str], console: Console) -> Examination:
    """Make all checks and write the page.

    Args:
        cfg: Composed config of the command.
        overrides: Overrides as typed; the runs of the other methods take them, too.
        console: Where findings are printed as they come.

    Raises:
        ValueError: If a field of the command itself is wrong.
    """
    for name in ("samples", "few"):
        require_count(name, cfg[name])
    names = (cfg.model.name, cfg.benchmark.name)
    inputs = "inputs as in the files" if cfg.model.resize == "hub" else "images padded"
    doctor = Examination(
        f"mustdrop doctor: {names[0]} on {names[1]} ({inputs})",
        on_finding=lambda finding: _print(console, finding),
    )
    console.print(doctor.title, style="bold", highlight=False)
    folder = Path(cfg.output_root, "doctor", *names)
    try:
        _examine(doctor, cfg, overrides, folder)
    except Broken as error:
        doctor.leave_out(["the rest"], f"it needs the result of the check {error}")
    doctor.save(folder)
    console.print(doctor.verdict(), style="bold", highlight=False)
    console.print(f"{folder}/doctor.txt", highlight=False)
    return doctor


def _examine(doctor: Examination, cfg: DictConfig, overrides: Sequence[str], folder: Path) -> None:
    run_cfg, limit = run_config(cfg), int(cfg.samples)
    config = checked(run_cfg, overrides)
    checkpoint = doctor.run("model", lambda: instantiate(run_cfg.model))
    device = Device(doctor.run("device", lambda: checkpoint.usable_device(config["device"])))
    doctor.run("machine", lambda: machine(device))
    task = doctor.run("rows", lambda: instantiate(run_cfg.benchmark.task))
    doctor.run("rows", lambda: rows(task, config))
    job = doctor.run("model", lambda: runs.built(run_cfg, config))
    setup = doctor.run("prompts", lambda: _Setup.of(job))
    doctor.add(Finding("model", "ok", setup.described()))
    doctor.run("weights", lambda: weights(setup.model))
    doctor.run("end token", lambda: end_token(setup.model, setup.processor.tokenizer))
    doctor.run("template", lambda: template(setup.processor, setup.chats[0], setup.prompts[0]))
    doctor.run("images", lambda: _images(setup, folder))
    doctor.run(
        "attention", lambda: kernels(setup.model, setup.prompts[0], config["model"]["attention"])
    )
    arms = {name: arm_config(overrides, cfg, name) for name in cfg.methods}
    first = next(iter(arms))
    doctor.run(
        "exactness",
        lambda: exactness(setup.model, first, instantiate(arms[first].dropper), setup.prompts),
    )
    few = scorable(task, min(int(cfg.few), limit))
    _answers(doctor, run_cfg, arms, scorable(task, limit), few, device)


class _Setup:
    """Model and processor, with the first questions as conversations and as inputs."""

    def __init__(self, job: Any, chats: Sequence[Any], prompts: Sequence[Mapping[str, Any]]):
        self.model, self.processor, self.chats, self.prompts = (
            job.model, job.processor, chats, prompts,
        )  # fmt: skip
        self.adapter = adapter_for(job.model)

    @classmethod
    def of(cls, job: Any) -> "_Setup":
        """Read the first questions."""
        videos = VideoReader.of(job.processor, job.frame_cache)
        docs, name = job.task.eval_docs, job.task.config.task
        chats = [
            read_document(name, docs, index, job.task.doc_to_messages, videos)[1]
            for index in range(min(EXACT_PROMPTS, len(docs)))
        ]
        prompts = [dict(prompt_inputs(job.model, job.processor, [chat])) for chat in chats]
        return cls(job, chats, prompts)

    def described(self) -> str:
        """Class and size of the model."""
        parameters = sum(weight.numel() for weight in self.model.parameters())
        depth = self.adapter.facts.depth
        return f"{type(self.model).__name__}, {parameters / 1e6:,.0f} M parameters, {depth} layers"


def _images(setup: _Setup, folder: Path) -> list[Finding]:
    """Check a probe, and draw what the encoder sees of it and of the first question's image."""
    parts = [{"type": "image", "url": probe()}, {"type": "text", "text": "?"}]
    messages: Any = [{"role": "user", "content": parts}]
    chat = ChatMessages(messages=messages)
    inputs = prompt_inputs(setup.model, setup.processor, [chat])
    shown = seen(setup.adapter, setup.processor, inputs)
    drawn = [save_picture(folder, "probe.png", probe(), shown)]
    if shown_images := pictures(setup.chats[0]):
        encoded = seen(setup.adapter, setup.processor, setup.prompts[0])
        drawn.append(save_picture(folder, "first_image.png", shown_images[0], encoded))
    names = " and ".join(path.name for path in drawn)
    images = [image for chat in setup.chats for image in pictures(chat)]
    finding = image_handling(setup.adapter, shown[0], images)
    colours = normalisation(setup.adapter, setup.processor)
    return [
        finding,
        *colours,
        *blank(images),
        Finding("pictures", "ok", f"original and what the encoder sees: {names}"),
    ]


def _answers(
    doctor: Examination,
    run_cfg: DictConfig,
    arms: Mapping[str, DictConfig],
    limit: int,
    few: int,
    device: Device,
) -> None:
    """Run vanilla and the other methods, and look at their answers, times and memory."""
    run_cfg.benchmark.limit = limit
    device.start_memory()
    record = doctor.run("answers", lambda: runs.run(run_cfg))
    peak = device.peak_memory()
    config = checked(run_cfg)
    samples = read_samples(run_folder(config))
    most = OmegaConf.select(run_cfg, "benchmark.task.max_new_tokens") or 0
    doctor.run("answers", lambda: sound_answers(samples, most))
    doctor.run("context", lambda: context(record["context"], config["benchmark"]["name"]))
    doctor.run("accuracy", lambda: accuracy(config, samples, record["metrics"]))
    answered = {"vanilla": samples[:few]}
    seconds = {"vanilla": record["seconds"] / record["n"]}
    for name, arm in arms.items():
        arm.benchmark.limit = few
        done = doctor.run("methods", lambda arm=arm: runs.run(arm))
        answered[name] = read_samples(run_folder(checked(arm)))[:few]
        seconds[name] = done["seconds"] / done["n"]
    doctor.run("methods", lambda: methods(answered))
    available = record["available"]
    doctor.run(
        "cost", lambda: cost(seconds, peak, available, config["benchmark"]["name"], device.name)
    )


def run_config(cfg: DictConfig) -> DictConfig:
    """Config of a run, without the fields of this command."""
    keys = [str(name) for name in cfg if name not in FIELDS]
    return OmegaConf.masked_copy(cfg, keys)


def arm_config(overrides: Sequence[str], cfg: DictConfig, method: str) -> DictConfig:
    """Config of the run of another method, with the overrides of the command."""
    given = [text for text in overrides if not text.startswith(("method=", "budget="))]
    arm = composed(*given, f"method={method}", f"budget='{cfg.share}'", name="doctor")
    return run_config(arm)


def _print(console: Console, finding: Finding) -> None:
    style = {"wrong": "bold red", "warning": "yellow", "left out": "dim"}.get(finding.level)
    console.print("\n".join(finding_lines(finding)), style=style, highlight=False, markup=False)


def program(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code: 1 if something is wrong."""
    codes: list[int] = []

    def job() -> None:
        if unfit := [text for text in arguments if text.startswith("-")]:
            raise ValueError(f"doctor takes overrides name=value alone, got {unfit[0]}")
        cfg = composed(*arguments, name="doctor")
        codes.append(0 if examine(cfg, arguments, Console(width=120)).healthy else 1)

    run_hydra(job, arguments, __doc__, lambda given: composed(*given, name="doctor"), SAVED)
    return codes[0] if codes else 0
