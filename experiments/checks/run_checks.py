"""Checks of a run before any work: its values, and the files and devices that it needs.

Loads no model and reads no question; a sweep checks all its runs before the first one starts.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue

from experiments.checks.remedies import missing, require_split
from experiments.checks.thresholds import require_matching_thresholds
from mustdrop.budget import Budget
from mustdrop.evaluation.ahead import chosen_workers
from mustdrop.presets.compose import resolved
from mustdrop.presets.from_budget import budget_floor
from mustdrop.presets.planned import require_planned, usual_tokens
from mustdrop.presets.tuned import missing_fields
from mustdrop.provenance.checkpoint_files import PACKAGED_FOLDERS, PACKAGED_SMOL
from mustdrop.provenance.media_files import question_files

# Attention implementation -> module of the package that it needs.
FLASH_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


def checked(cfg: DictConfig, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Resolve the config of a run, and check its counts, its budget and its thresholds.

    Args:
        cfg: Composed config.
        overrides: Overrides as typed, for the commands in messages.

    Raises:
        ValueError: If a value is missing or wrong, or a threshold was made for another run.
    """
    Budget.parse(cfg.budget)  # first, since an error of a strategy would be less clear
    require_split(cfg)
    require_thresholds(cfg, overrides)
    try:
        config = resolved(cfg)
    except MissingMandatoryValue as error:
        name = str(error.full_key)
        raise ValueError(f"{name} has no value: give {name}=<value>") from error
    require_counts(config)
    require_planned(config)
    instantiate(cfg.model)  # first, since a wrong field of the model also differs from a row's
    require_matching_thresholds(cfg, config, overrides)
    return config


def require_counts(config: Mapping[str, Any]) -> None:
    """Check all counts, so that a wrong one does not become another run.

    Raises:
        ValueError: If a count is wrong; names the field, the expected and the given value.
    """
    require_count("benchmark.limit", config["benchmark"]["limit"], none=True)
    chosen_traces(config)
    require_count("batch_size", config["batch_size"])
    require_count("batch_window", config["batch_window"])
    require_count("threads", config["threads"], none=True)
    chosen_workers(config["workers"])
    size = config.get("frame_cache", 0)
    if isinstance(size, bool) or not isinstance(size, int | float) or size < 0:
        raise ValueError(f"frame_cache must be a size in GB, 0 or more, got {size!r}")


def require_thresholds(cfg: DictConfig, overrides: Sequence[str] = ()) -> None:
    """Check that each field of the stages has a value, for this model, benchmark and budget.

    Raises:
        NeedsCalibration: If a field has none; says how to get it.
    """
    fields = missing_fields(cfg)
    if fields:
        raise missing(cfg, fields, overrides)


def require_count(name: str, value: Any, none: bool = False) -> Any:
    """Return the value if it is a count, or None if ``none`` allows that.

    Raises:
        ValueError: If the value is no count.
    """
    if (value is None and none) or (
        isinstance(value, int) and not isinstance(value, bool) and value >= 1
    ):
        return value
    raise ValueError(
        f"{name} must be a count of 1 or more{', or null' if none else ''}, got {value!r}"
    )


def chosen_traces(config: Mapping[str, Any]) -> Sequence[int]:
    """Return the doc_ids of the samples whose ledger is kept.

    Raises:
        ValueError: If ``traces`` is neither a count nor a list of doc_ids.
    """
    traces = config["traces"]
    plain = isinstance(traces, int) and not isinstance(traces, bool)
    if plain and traces >= 0:
        return range(traces)
    if isinstance(traces, list) and all(type(doc) is int and doc >= 0 for doc in traces):
        return traces
    raise ValueError(f"traces must be a number of samples or a list of doc_ids, got {traces!r}")


def require_ready(config: Mapping[str, Any], here: bool = True) -> None:
    """Check that a run can start: its folders, its method, its device. Loads no weights.

    Args:
        config: Resolved config.
        here: Whether the run will use this machine, so that its devices are checked.

    Raises:
        ValueError: If the run cannot start (or TypeError, OSError, Hydra's own error).
    """
    if budget_floor(config) is None:  # a budget out of reach needs no run
        require_folders(config)
        require_buildable(config, here)


def require_folders(config: Mapping[str, Any]) -> None:
    """Check that the folders of the checkpoint and of the data exist. Imports nothing heavy.

    Names of the hub are checked only if HF_HUB_OFFLINE is set, against the hub's cache.

    Raises:
        FileNotFoundError: If a folder is missing, or lacks the files that it must hold.
    """
    name = config["model"]["pretrained"]
    if name == PACKAGED_SMOL:
        from mustdrop.pocket.smol.package import weights_file

        weights_file()
    elif name not in PACKAGED_FOLDERS:
        folder = _folder("model.pretrained", name)
        if folder is None:
            _require_cached("model.pretrained", name, config["model"]["revision"], "model")
        elif not (folder / "config.json").is_file():
            raise FileNotFoundError(f"model.pretrained: {name} is no checkpoint: no config.json")
        else:
            _require_whole(folder / "config.json")
            if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
                raise FileNotFoundError(f"model.pretrained: {name} holds no weights")
    data, task = config["benchmark"].get("data"), config["benchmark"]["task"]
    if data is None:
        return
    folder = _folder("benchmark.data", data)
    if folder is None:
        _require_cached("benchmark.data", data, None, "dataset")
        return
    split = task.get("split")
    if "videos" in task:
        for path in (*question_files(folder, task), folder / task["videos"]):
            if not path.exists():
                name = path.relative_to(folder) if path.is_relative_to(folder) else path
                raise FileNotFoundError(
                    f"benchmark.data: {data} has no {name}; docs/video.md describes the layout"
                )
        return
    if "media" in task:
        from mustdrop.evaluation.tasks.custom_rows import question_file, read_rows

        read_rows(question_file(folder, task["split"]), folder / task["media"])
        return
    if split is not None and not any(
        path.name == f"{split}.parquet" or path.name.startswith(f"{split}-")
        for path in folder.rglob("*.parquet")
    ):
        raise FileNotFoundError(
            f"benchmark.data: {data} holds no parquet file of split {split} "
            f"({split}.parquet or {split}-*.parquet)"
        )


def require_buildable(config: Mapping[str, Any], here: bool = True) -> None:
    """Check that the method can be built for this model and, with ``here``, that the device exists.

    Raises:
        ValueError: If a check fails (or TypeError, or Hydra's own error).
    """
    dropper = instantiate(config["dropper"])
    for name in ("image", "controls", "tracker"):
        if config[name] is not None:
            instantiate(config[name])
    last, prefill = config["model"]["layers"] - 2, dropper.prefill
    if prefill is not None and prefill.videos_only and config["model"].get("frames") is None:
        raise ValueError(
            f"{type(prefill).__name__} chooses among the frames of a video, but model.frames is "
            "null, so that videos are refused: choose a model and a benchmark of videos"
        )
    if prefill is not None:  # with its counts: the layer of VTW follows from the budget
        prefill = prefill.plan(usual_tokens(config), last + 2)
    for layer in prefill.layers if prefill is not None else ():
        if not -1 <= layer <= last:
            raise ValueError(
                f"{type(dropper.prefill).__name__} acts after layer {layer}; this model can drop "
                f"after layers -1 to {last}"
            )
    _require_layers(config["model"])
    if here:
        _require_device(config)


def _require_layers(model: Mapping[str, Any]) -> None:
    """Check ``model.layers`` against the checkpoint's config, if that states a number."""
    path = Path(model["pretrained"]).expanduser() / "config.json"
    if model["pretrained"] in PACKAGED_FOLDERS or not path.is_file():
        return
    config = json.loads(path.read_bytes())
    depth = (config.get("text_config") or config).get("num_hidden_layers")
    if depth not in (None, model["layers"]):
        raise ValueError(
            f"model.layers is {model['layers']}, but {model['pretrained']} has {depth}"
        )


def _require_device(config: Mapping[str, Any]) -> None:
    import torch

    name = config["device"]
    attention = config["model"]["attention"]
    package = FLASH_PACKAGES.get(attention)
    if package is not None and find_spec(package) is None:
        raise ValueError(f"model.attention={attention}: {package} is not installed")
    if name == "auto":
        return
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={name} cannot be used: {reason}") from error
    # only the number of devices is read: a tensor on one would take memory that the runs need
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={name} cannot be used: torch sees {torch.cuda.device_count()} GPUs"
        )


def _folder(field: str, name: str) -> Path | None:
    """Return the folder of that name; None if the name is one of the hub."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    # a hub name is owner/name; any other name with a slash must be a folder
    if folder.is_absolute() or len(folder.parts) != 2:
        raise FileNotFoundError(f"{field}: there is no folder {name}")
    return None


def _require_cached(field: str, name: str, revision: str | None, kind: str) -> None:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if not constants.HF_HUB_OFFLINE:
        return
    try:
        snapshot_download(name, revision=revision, repo_type=kind, local_files_only=True)
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise FileNotFoundError(
            f"{field}: {name} is no folder, and HF_HUB_OFFLINE is set, but the hub's cache does "
            f"not hold {name}: download it with a network, or give {field}=/path/to/folder"
        ) from error


def _require_whole(path: Path) -> None:
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        raise FileNotFoundError(f"model.pretrained: {path} is no JSON ({error})") from error
