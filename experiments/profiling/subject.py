"""The subject of a profile: its model, its prompts and its arms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from transformers import AutoConfig, PreTrainedConfig

from experiments.profiling.plan import CALIBRATE, CONFIG, ProfiledRun, ProfilePlan
from experiments.profiling.schedules import read_schedule
from experiments.profiling.thresholds import MERGED, ThresholdSearch, scheduled
from mustdrop.budget import Budget
from mustdrop.checkpoint import Checkpoint
from mustdrop.dropper import TokenDropper
from mustdrop.evaluation.chat import document_name, read_document
from mustdrop.evaluation.frame_cache import VideoReader
from mustdrop.evaluation.model_inputs import prompt_inputs
from mustdrop.evaluation.token_controls import Controls
from mustdrop.profiling.device import Device
from mustdrop.profiling.measure import METHOD, REFERENCE, VANILLA, Arm, BatchBench
from mustdrop.profiling.random_models import build_random, with_depth
from mustdrop.profiling.random_pictures import processed, random_pictures
from mustdrop.profiling.random_prompts import RandomPrompts, usual_size
from mustdrop.profiling.reference import vision_slots
from mustdrop.profiling.sizes import CONFIGS
from mustdrop.provenance.checkpoint_files import PACKAGED_FOLDERS

RANDOM = "random"
SEED = 0  # of the random tokens


def config_of(checkpoint: Checkpoint) -> PreTrainedConfig:
    """Config of a model: its packaged sizes, or the config.json of its folder.

    Raises:
        ValueError: If there is neither.
    """
    if checkpoint.name in CONFIGS:
        return CONFIGS[checkpoint.name]()
    packaged = PACKAGED_FOLDERS.get(checkpoint.pretrained)
    folder = packaged or Path(checkpoint.pretrained).expanduser()
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"the sizes of {checkpoint.name} are not known without a network: give "
            f"model.pretrained=<folder with a config.json>, or one of {', '.join(CONFIGS)}"
        )
    return AutoConfig.from_pretrained(folder, local_files_only=True)


@lru_cache(maxsize=1)
def loaded(
    checkpoint: Checkpoint, requested: str, weights: str, depth: int | None
) -> tuple[Any, Any, int]:
    """Model, processor (None with random weights), and decoder layers of the full model."""
    if weights == "checkpoint":
        model, processor = checkpoint.load(requested)
        return model, processor, model.config.get_text_config().num_hidden_layers
    device = checkpoint.usable_device(requested)
    config = config_of(checkpoint)
    full = config.get_text_config().num_hidden_layers
    dtype = getattr(torch, checkpoint.dtype)
    model = build_random(with_depth(config, depth), device, dtype, checkpoint.attention)
    return model, None, full


@dataclass(eq=False)
class ProfileSubject:
    """Model, prompts and method of a profile.

    Attributes:
        plan: What is measured.
        run: The run that is profiled.
        model: The model.
        processor: Processor of the model; None with random weights.
        full_depth: Number of decoder layers of the full model.
        device: Device to measure on.
    """

    plan: ProfilePlan
    run: ProfiledRun
    model: Any
    processor: Any
    full_depth: int
    device: Device

    @classmethod
    def load(cls, plan: ProfilePlan, run: ProfiledRun) -> "ProfileSubject":
        """Load or build the model."""
        checkpoint = instantiate(run.cfg.model)
        if not isinstance(checkpoint, Checkpoint):
            raise TypeError(f"model must name a Checkpoint, got {type(checkpoint).__name__}")
        if run.config["threads"] is not None:
            torch.set_num_threads(run.config["threads"])
        model, processor, full = loaded(
            checkpoint, run.config["device"], plan.weights, plan.depth
        )  # fmt: skip
        device = Device(str(model.device))
        if device.cuda:  # events are set on the current device
            torch.cuda.set_device(model.device)
        return cls(plan, run, model, processor, full, device)

    def prompts(
        self, images: int, frames: int, batch: int
    ) -> tuple[Mapping[str, Any], Callable[[], object]]:
        """Inputs of a batch, and the work of the processor that makes them.

        Raises:
            ValueError: If the benchmark has fewer questions.
        """
        if self.plan.prompts == "random":
            size = self.plan.size or usual_size(self.model.config, bool(frames))
            drawn = RandomPrompts(self.model, images, size, frames)
            pictures = random_pictures(drawn.shown, size) * batch
            work = partial(processed, self.model.config, pictures)
            return drawn.inputs(batch), work
        task = instantiate(self.run.cfg.benchmark.task)
        name, docs = task.config.task, task.eval_docs
        if batch > len(docs):
            raise ValueError(f"profile.batch must be at most {len(docs)}, the questions of {name}")
        to_messages, videos = task.doc_to_messages, VideoReader.of(self.processor)
        chats = [read_document(name, docs, i, to_messages, videos)[1] for i in range(batch)]
        names = [document_name(name, index) for index in range(batch)]

        def process() -> Mapping[str, Any]:
            return prompt_inputs(self.model, self.processor, chats, names)

        return process(), process

    def method(self, inputs: Mapping[str, Any]) -> tuple[TokenDropper, str]:
        """The method on these prompts, and how its counts came about."""
        run, budget = self.run, Budget.read(self.run.config["budget"])
        dropper = instantiate(run.cfg.dropper)
        if self.plan.counts == CONFIG:
            return dropper, "the thresholds and counts of the config"
        if not run.free:
            return dropper, "the budget, in closed form"
        search = ThresholdSearch(self.model, inputs)
        if self.plan.counts != CALIBRATE:
            names = (run.config["model"]["name"], run.config["method"]["name"])
            schedule = read_schedule(self.plan.counts, *names, budget.name if budget else "none")
            slots = int(vision_slots(self.model, inputs)[0].sum())
            text = f"given by {self.plan.counts}; the method computes its scores and its selection"
            return scheduled(search, dropper, schedule, slots), text
        if "vision.tau" in run.free and run.searched != "vision.tau":
            dropper = search.merging(dropper, MERGED)
        if run.searched is not None:
            if budget is None:
                raise ValueError("there is no budget to meet: choose one, as in budget=t128")
            dropper = search.budget(dropper, run.searched, budget)
        values = []
        for path in run.free:
            stage, _, name = path.partition(".")
            values.append(f"{path}={getattr(getattr(dropper, stage), name):.4g}")
        return dropper, f"calibrated on these prompts: {', '.join(values)}"

    def arms(self, bench: BatchBench, method: TokenDropper) -> list[Arm]:
        """Vanilla, the method, its reference time, and random tokens with the method's counts."""
        stages = (method.vision, method.key_tokens, method.prefill, method.decode)
        if all(stage is None for stage in stages):
            return [Arm(VANILLA, None), Arm(REFERENCE, None, reference=True)]
        arm = Arm(METHOD, method)
        _, run = bench.work(arm)
        (control,) = Controls(RANDOM, [SEED], [], False).passes(method, run.ledgers)
        return [
            Arm(VANILLA, None), arm, Arm(REFERENCE, method, reference=True),
            Arm(RANDOM, control.dropper),
        ]  # fmt: skip
