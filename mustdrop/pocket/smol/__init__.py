"""PocketSmol: a LLaVA around a real pretrained language model, SmolLM2-135M-Instruct."""

from mustdrop.pocket.smol.language import load_language
from mustdrop.pocket.smol.lora import add_lora, lora_weights, merge_lora
from mustdrop.pocket.smol.model import SMOL_CHECKPOINT, assemble, load_smol
from mustdrop.pocket.smol.package import weights_file

__all__ = [
    "SMOL_CHECKPOINT",
    "add_lora",
    "assemble",
    "load_language",
    "load_smol",
    "lora_weights",
    "merge_lora",
    "weights_file",
]
