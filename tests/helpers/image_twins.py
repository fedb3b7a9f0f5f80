"""Twins of all stock benchmarks in one folder: more rows than the stand-ins, noise as images."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import hub_checkpoints
import numpy as np
from PIL import Image
from standins import ROWS, write

from mustdrop.presets.compose import composed

SIZES = ((48, 32), (32, 48), (40, 40))  # of the images, [width, height]


def write_twins(root: Path, names: list[str], times: int, sides: int = 1) -> str:
    """Write the splits for answers and for thresholds; the override that names their folders.

    Args:
        root: Folder that gets one folder for each benchmark.
        names: Benchmarks.
        times: Number of copies of the stand-ins' rows, each with other images and names.
        sides: Factor of the images' sides.
    """
    for name in names:
        benchmark = composed(f"benchmark={name}", "method=vanilla").benchmark
        for node in (benchmark.task, benchmark.calibration):
            if node is None:
                continue
            subsets = [node.subset or "data"]
            if name == "gqa":
                subsets.append(subsets[0].removesuffix("_instructions") + "_images")
            for subset in subsets:
                rows = [
                    _copy(row, name, number, sides)
                    for number in range(times)
                    for row in ROWS[name](subset)
                ]
                write(rows, root / name / subset / f"{node.split}-00000-of-00001.parquet")
    return f"benchmark.data={root}/${{benchmark.name}}"


def _copy(row: dict[str, Any], name: str, number: int, sides: int) -> dict[str, Any]:
    """A row with another image, and names that no other copy has."""
    made = dict(row)
    for key in ("id", "imageId", "image_id"):
        if isinstance(row.get(key), str):
            made[key] = f"{row[key]}_{number}"
    if name == "mmbench":
        made["index"] += 10 * number
    elif name == "vqav2":
        made["question_id"] = made["image_id"] = row["question_id"] + 100 * number
    elif isinstance(row.get("question_id"), int):
        made["question_id"] += 100 * number
    elif "question_id" in row:
        made["question_id"] = f"{number}_{row['question_id']}"
    if "image" in row:
        made["image"] = _noise(f"{name} {number} {row['image'].tobytes()[:3]!r}", sides)
    return made


def _noise(seed: str, sides: int) -> Image.Image:
    """Noise on the right, one colour on the left, where windows merge."""
    draws = np.random.default_rng(list(seed.encode()))
    width, height = (sides * side for side in SIZES[draws.integers(len(SIZES))])
    values = draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
    values[:, : width // 2] = 100
    return Image.fromarray(values)


def save_llava(folder: Path, layers: int, side: int) -> list[str]:
    """Write a tiny LLaVA-1.5 for images of ``side`` pixels; the overrides that choose it."""
    with patch.object(hub_checkpoints, "SIDE", side):
        hub_checkpoints.save("llava", folder, layers)
    cells = (side // hub_checkpoints.PATCH) ** 2
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    hub_checkpoints.write(
        folder / "preprocessor_config.json",
        {**hub_checkpoints.CHECKPOINTS["llava"].images, **sizes},
    )
    return [
        f"model.pretrained={folder}", f"model.layers={layers}", f"model.vision_tokens={cells}",
        "model.merging_blocks=3", "model.dtype=float32",
    ]  # fmt: skip
