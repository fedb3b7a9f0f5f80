"""Twins of benchmarks, written to a folder, and the tasks that read them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from mustdrop.presets.compose import composed


def benchmark(name: str, root: Path) -> DictConfig:
    """Config of a benchmark whose twin is in a folder of its name."""
    return composed(f"benchmark={name}", f"benchmark.data={root / name}").benchmark


def twins_of(
    names: Iterable[str], root: Path, write: Callable[..., list[dict[str, Any]]]
) -> dict[str, tuple[list[dict[str, Any]], Any]]:
    """Write twins; name -> rows of the evaluated split, and the task that reads them."""
    made = {}
    for name in names:
        node = benchmark(name, root).task
        rows = write(name, root / name, node.subset, node.split)
        made[name] = rows, instantiate(node)
    return made
