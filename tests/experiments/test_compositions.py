"""The cells of a sweep get the configs that Hydra composes, with fewer compositions."""

from collections.abc import Sequence

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from experiments.sweeps.cells import cells_of
from experiments.sweeps.compositions import Compositions
from mustdrop.presets.compose import composed

FASTV = "method=fastv"
CELLS = (
    (FASTV, "budget=t64"),
    (FASTV, "budget=22.2%", "prefill.layer=1"),
    (FASTV, "budget=none", "prefill.keep=9", "prefill.layer=2", "batch_size=2", "seed=3"),
    (FASTV, "budget=t64", "budget=t128", "benchmark.limit=null", "dropper={positions: compact}"),
    (FASTV, "benchmark=pocket_pope", "controls=none", "prefill.rows=all"),
    (FASTV, "vision=none", "+model.note=hello", "tracker=none"),
    ("method=mustdrop", "budget=t128", "prefill.layers=[0,2]", "vision.tau=62.5"),
    ("method=vanilla", "image=resized", "image.ratio=0.5", "output_root='a=b'"),
)


class Counted:
    """Composes by Hydra, and stores the overrides of each call."""

    def __init__(self) -> None:
        self.calls: list[Sequence[str]] = []

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        self.calls.append(tuple(overrides))
        return composed(*overrides)


def test_every_config_is_the_one_that_hydra_composes():
    compositions = Compositions(composed_of := Counted())
    for overrides in (*CELLS, *CELLS[:2]):
        expected = composed(*overrides)
        # not resolved, so that formulas and references to tables are compared as well
        assert OmegaConf.to_container(compositions(overrides)) == OmegaConf.to_container(expected)
    assert len(composed_of.calls) == 5


def test_cells_with_the_same_options_share_one_composition():
    compose = Counted()
    budgets = [(FASTV, f"budget=t{tokens}", "batch_size=2") for tokens in (192, 128, 64, 2)]
    cells = cells_of([*budgets, ("method=random", "budget=t64")], compose)
    assert compose.calls == [(FASTV,), ("method=random",)]
    assert [cell.config["prefill"]["keep"] for cell in cells if cell.config] == [
        157, 87, 17, "floor 48", 64,
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", ["prefill.kep=3", "prefil.keep=3", "prefill.keep.more=3"])
def test_a_field_that_does_not_exist_gets_the_error_of_hydra(wrong):
    compositions = Compositions(lambda overrides: composed(*overrides))
    compositions((FASTV,))
    with pytest.raises(ConfigCompositionException, match="Could not override"):
        compositions((FASTV, "budget=t64", wrong))
