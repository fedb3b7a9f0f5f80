"""A mark that identifies the weights of a checkpoint, cheap enough to compute before each run.

The mark is a hash of the name, type, shape and first bytes of every tensor. It does not depend on
how tensors are spread over files, and a fine-tuned copy has another mark. Loads no model.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mustdrop.provenance.checkpoint_files import PACKAGED_FOLDERS

FILE = "model.safetensors"
FIRST = 4096  # bytes of each tensor that are hashed


def weights_mark(pretrained: str, revision: str | None = None) -> str | None:
    """Mark of a checkpoint's weights, twelve digits; None if they are not on this machine.

    Args:
        pretrained: Folder, hub name, or name of an embedded model.
        revision: Revision on the hub; None for the newest.
    """
    if pretrained in PACKAGED_FOLDERS:
        content = (PACKAGED_FOLDERS[pretrained] / FILE).read_bytes()
        return hashlib.sha256(content).hexdigest()[:12]
    folder = Path(pretrained).expanduser()
    if not folder.is_dir():
        cached = _cached(pretrained, revision)
        if cached is None:
            return None
        folder = cached
    files = sorted(folder.glob("*.safetensors"))
    return _mark(files) if files else None


def _mark(files: list[Path]) -> str | None:
    tensors = {}
    for path in files:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > path.stat().st_size:  # a pointer to a file not downloaded, or a torn file
                return None
            header = json.loads(file.read(size))
            for name, entry in header.items():
                if name != "__metadata__":
                    start, end = entry["data_offsets"]
                    file.seek(8 + size + start)
                    first = hashlib.sha256(file.read(min(FIRST, end - start))).hexdigest()
                    tensors[name] = [entry["dtype"], entry["shape"], first]
    text = json.dumps(tensors, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _cached(name: str, revision: str | None) -> Path | None:
    """Folder of a checkpoint in the hub's cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def same_weights(made: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    """Whether a run's model has the weights for which a threshold was calibrated.

    Args:
        made: Calibrated model: ``pretrained``, and ``weights``, its mark or None if unknown.
        model: Model of the run.
    """
    if made["weights"] is not None:
        mark = weights_mark(model["pretrained"], model["revision"])
        if mark is not None:
            return mark == made["weights"]
    return made["pretrained"] == model["pretrained"]
