"""Measure time, memory and operations of a method, next to the plain model and random tokens.

mustdrop profile                                         # PocketLLaVA, MustDrop at t192
mustdrop profile method=fastv budget=t128 profile.batch=[1,8] profile.new_tokens=[1,32,256]
mustdrop profile -m method=fastv,visionzip budget=t64 tracker=wandb
mustdrop profile model=llava15_7b profile.weights=random       # full size, no files: a GPU
mustdrop profile model=llava15_7b profile.weights=random profile.images=[1,5,8] budget=33.3%
mustdrop profile model=qwen2_5_vl_7b method=mustdrop_qwen profile.weights=random profile.frames=[32]
mustdrop profile model=llava15_7b model.dtype=float32 profile.weights=random profile.depth=4

Measured in turn, in rounds: vanilla; the method; its reference time, which is that of the same
layers on sequences cut to its lengths; random tokens with its counts. For each of them: the parts
of the time to the first token, the time per token, whole answers, memory, cache, operations.
Fields: conf/profile.yaml, as in profile.rounds=20. Result: efficiency.json in the run's folder,
for `mustdrop tables efficiency` and `mustdrop figures`. It is saved after every round; a killed
profile continues with the same command. Exit code: 2 for bad input, 75 if another process is busy.
"""

import mustdrop.openmp  # noqa: F401  # isort: skip  # before torch loads
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments.checks.remedies import typed
from experiments.cli.errors import BAD_INPUT, BUSY, KNOWN, message
from experiments.cli.hydra_program import run_hydra
from experiments.profiling.plan import ProfilePlan, profiled_run
from experiments.profiling.progress import profile_progress
from experiments.profiling.record import DONE, EfficiencyRecord, locked
from experiments.profiling.shown import shown
from experiments.profiling.subject import ProfileSubject
from experiments.tracking.follow import watched
from mustdrop.models import adapter_for
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir
from mustdrop.profiling.measure import Arm, BatchBench
from mustdrop.profiling.reference import vision_slots
from mustdrop.profiling.roofline import measured_rates
from mustdrop.profiling.rounds import RoundPlan, run_rounds
from mustdrop.runs.folder import read_efficiency, run_folder
from mustdrop.runs.timing import Watch
from mustdrop.runs.writer import Busy

LIBRARIES = ("mustdrop", "torch", "transformers")
PROCESSOR_CALLS = 3
failures: list[str] = []


def profile(cfg: DictConfig, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Profile a run, or return its profile if it is finished already.

    Raises:
        Busy: If another process profiles the run.
        ValueError: If the config cannot work (or TypeError, OSError, and Hydra's own errors).
    """
    plan = ProfilePlan.read(OmegaConf.to_container(cfg.profile, resolve=True))  # pyright: ignore
    run = profiled_run(cfg, plan, overrides)
    folder = run_folder(run.config)
    with locked(folder):
        subject = ProfileSubject.load(plan, run)
        settings = settings_of(subject)
        record = EfficiencyRecord(folder, settings, about(subject), bool(run.config["force"]))
        if lacking(record, plan):
            measure(subject, record)
        record.finish()
        config = folder / "config.yaml"
        if not config.exists():
            config.write_text(OmegaConf.to_yaml(OmegaConf.create(dict(run.config))))
    if run.config["tracker"] is not None:
        with watched(run.config["tracker"], folder, live=False) as tracker:
            tracker.start()
    done = read_efficiency(folder)
    assert done is not None and done["state"] == DONE
    return {**done, "folder": str(folder)}


def lacking(record: EfficiencyRecord, plan: ProfilePlan) -> bool:
    """Whether a batch has fewer rounds than the plan."""
    rounds = {(c["images"], c["frames"], c["batch"]): c["rounds"] for c in record.content["cells"]}
    return any(rounds.get(cell, 0) < plan.rounds for cell in plan.batches)


def measure(subject: ProfileSubject, record: EfficiencyRecord) -> None:
    """Measure all batches of a profile that lack rounds."""
    plan, device = subject.plan, subject.device
    rounds = RoundPlan(plan.rounds, plan.warm_ups, plan.new_tokens)
    watch, content = Watch(), record.content
    if "rates" not in content:
        content["rates"] = measured_rates(device, subject.model.dtype)
    with profile_progress(len(plan.batches) * rounds.steps(4)) as progress:

        def save() -> None:
            content["timing"] = watch.so_far(plan.rounds)
            content["hardware"]["clocks_after"] = device.clocks()
            record.save()

        for images, frames, batch in plan.batches:
            entry = record.entry(images, frames, batch)
            if entry["rounds"] >= plan.rounds:
                progress.skip(rounds.steps(4))
                continue
            shquestion_inputs = f"{frames} frames" if frames else f"{images} images"
            progress.prefix = f"{shquestion_inputs}, batch {batch}: "
            progress.show("thresholds")
            bench, arms = prepared(subject, entry)
            run_rounds(bench, arms, entry, rounds, save, progress.step)
            device.free()
    watch.close()


def prepared(subject: ProfileSubject, entry: dict[str, Any]) -> tuple[BatchBench, list[Arm]]:
    """Make the prompts of a batch and the arms, and describe them in the batch's entry."""
    images, frames, batch = entry["images"], entry["frames"], entry["batch"]
    inputs, process = subject.prompts(images, frames, batch)
    # random prompts of a batch are the same, so that one is enough to search thresholds on
    alone = subject.plan.prompts == "random" and batch > 1
    method, counts = subject.method(subject.prompts(images, frames, 1)[0] if alone else inputs)
    ids = inputs["input_ids"]
    slots = int(vision_slots(subject.model, inputs).sum())
    entry |= {
        "counts": counts, "prompt_tokens": ids.shape[1], "vision_tokens": slots // batch,
        "processor_ms": _processor_ms(process),
    }  # fmt: skip
    bench = BatchBench(subject.device, subject.model, inputs)
    return bench, subject.arms(bench, method)


def _processor_ms(process: Callable[[], object]) -> list[float]:
    """Milliseconds of the processor for a batch, some times."""
    times = []
    for _ in range(PROCESSOR_CALLS):
        start = time.perf_counter()
        process()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def settings_of(subject: ProfileSubject) -> dict[str, Any]:
    """Settings that two rounds of a profile must share."""
    plan, model = subject.plan, subject.model
    return {
        "weights": plan.weights, "prompts": plan.prompts, "counts": plan.counts,
        "size": list(plan.size) if plan.size else None, "new_tokens": list(plan.new_tokens),
        "depth": plan.depth, "device": subject.device.describe()["name"],
        "threads": torch.get_num_threads(), "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config.get_text_config()._attn_implementation,
        **{f"{name} version": version(name) for name in LIBRARIES},
    }  # fmt: skip


def about(subject: ProfileSubject) -> dict[str, Any]:
    """Names of the run, and descriptions of device and model."""
    config, model, head = (
        subject.run.config, subject.model, subject.model.get_output_embeddings(),
    )  # fmt: skip
    budget = config["budget"]
    return {
        "experiment": config["experiment"], "model": config["model"]["name"],
        "method": config["method"]["name"], "budget": budget["name"] if budget else "none",
        "benchmark": config["benchmark"]["name"],
        "depth": {
            "measured": model.config.get_text_config().num_hidden_layers,
            "full": subject.full_depth,
        },
        "weights_bytes": _bytes(model),
        "decoder_bytes": sum(map(_bytes, [*adapter_for(model).layers, head])),
        "hardware": {
            **subject.device.describe(), "host": platform.node(),
            "python": platform.python_version(), "clocks_before": subject.device.clocks(),
        },
    }  # fmt: skip


def _bytes(module: Any) -> int:
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="profile")
def job(cfg: DictConfig) -> None:
    """Profile and print; in a sweep, a run that fails does not stop the others."""
    try:
        print(shown(profile(cfg, typed())))
    except KNOWN as error:
        print(f"error: {message(error)}", file=sys.stderr)
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise SystemExit(BUSY if isinstance(error, Busy) else BAD_INPUT) from None
        failures.append(message(error))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what cannot work ends it with an exit code."""
    kept = "finished rounds are kept, and the same command continues from there"
    run_hydra(job, arguments, __doc__, lambda groups: composed(*groups, name="profile"), kept)


def program(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code: 1 if a run of a sweep failed."""
    main(arguments)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(program(sys.argv[1:]))
