"""The house itself: signatures are checked, configs parse, pins fit, a wheel is whole."""

import itertools
import re
import subprocess
import sys
import tomllib
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mustdrop.functional import top_keep
from mustdrop.reduction import Reduction

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [
    line
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
CONFIGS = sorted((ROOT / "conf").rglob("*.yaml"))


def test_a_tensor_of_the_right_shape_passes():
    assert top_keep(torch.tensor([0.0, 2.0, 1.0]), 2).tolist() == [1, 2]


@pytest.mark.parametrize(
    "score", [torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), [0.0, 1.0, 2.0]]
)
def test_a_wrong_shape_dtype_or_type_is_refused_at_run_time(score):
    with pytest.raises(TypeCheckError):
        top_keep(score, 1)


def test_a_wrong_field_of_a_dataclass_is_refused_at_run_time():
    with pytest.raises(TypeCheckError):
        Reduction(torch.zeros(3))


def test_a_warning_from_our_own_code_is_an_error():
    with pytest.raises(DeprecationWarning):
        warnings.warn_explicit("x", DeprecationWarning, "file", 1, module="mustdrop.engine.tap")
    with pytest.warns(DeprecationWarning):
        warnings.warn_explicit("x", DeprecationWarning, "file", 1, module="other.package")


def test_every_config_parses_and_says_what_it_is():
    assert CONFIGS
    for config in CONFIGS:
        OmegaConf.load(config)
        assert config.read_text().startswith("# "), f"{config} must open with what it is"


def test_a_pin_is_a_version_and_no_place():
    for pin in PINS:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin), pin


def test_the_pinned_versions_satisfy_every_requirement():
    pinned = {canonicalize_name(name): version for name, version in (p.split("==") for p in PINS)}
    assert len(pinned) == len(PINS)
    # trackio wants an older pillow than all else, and lives in an environment of its own
    extras = [v for extra, v in PROJECT["optional-dependencies"].items() if extra != "trackio"]
    for text in [*PROJECT["dependencies"], *itertools.chain(*extras)]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name != "mustdrop":
            assert requirement.specifier.contains(pinned[name]), text


def test_a_wheel_carries_configs_numbers_tasks_and_weights(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    carried = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    places = {
        "mustdrop": "mustdrop",
        "conf": "mustdrop/conf",
        "analysis": "analysis",
        "experiments": "experiments",
        "hydra_plugins": "hydra_plugins",
    }
    records = ROOT / "experiments" / "records"
    for source, place in places.items():
        files = [path for path in (ROOT / source).rglob("*") if path.is_file()]
        files = [path for path in files if path.suffix != ".pyc" and records not in path.parents]
        assert files, source
        for file in files:
            assert f"{place}/{file.relative_to(ROOT / source).as_posix()}" in carried
