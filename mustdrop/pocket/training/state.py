"""File of a training's state, which a kill at any time leaves whole. Knows no model."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

STATE = "state.pt"


def write_state(state: Mapping[str, Any], folder: Path) -> None:
    """Write a state to a new file of the folder and replace the old file by it."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{STATE}.unfinished"
    with unfinished.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / STATE)
