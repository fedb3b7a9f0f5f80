"""The engine waits for the device once per drop and batch, however many prompts and images."""

import pytest
from droppers import DROPPERS
from families import FAMILIES
from family_droppers import FEW, FITTING_OF, fits
from pretend_process import alone
from tiled_families import TILED

from mustdrop.prefill.sparsevlm import SparseVLM

COUNTED = """
from families import FAMILIES
from family_droppers import FITTING_OF

FAMILY, NAMES = {family!r}, {names!r}
made = FAMILIES[FAMILY]
model = made.model()
batches = [moved(made.inputs(model, *prompts)) for prompts in (made.prompts[:1], made.prompts)]
moved(model)
waits = {{}}
for name in NAMES:
    waits[name] = []
    for inputs in batches:
        with torch.no_grad(), FITTING_OF[FAMILY][name].attach(model), PretendDevice() as device:
            model(**inputs)
        # the waits of the model itself have the path of another file
        waits[name].append({{k: v for k, v in device.waits.items() if not k.startswith("/")}})
print(json.dumps(waits))
"""
# Waits that do not decide: for the ids and sizes of the batch, and for what is checked at the end.
READING = ("models/", "engine/prompts.py", "engine/checks.py")
# two encoder calls on Qwen, whose sizes are tensors
MOST_READING = {
    "gemma3": 3, "idefics3": 4, "internvl": 3, "llava_next": 3, "mistral3": 4, "onevision": 4,
    "paligemma": 3, "pixtral": 4, "qwen2_vl": 8, "qwen2_5_vl": 8, "qwen3_vl": 8, "smolvlm": 4,
    "video_llava": 3,
}  # fmt: skip
ONE_CALL = ("gemma3", "llava_next", "paligemma", *TILED)  # of an encoder, for all of a batch


def most_waits(name: str, family: str, prompts: int) -> int:
    """Largest number of waits that the decisions of a dropper may need on a batch.

    An encoder is called for images and, where a batch has both, once more for videos.
    """
    dropper = FITTING_OF[family][name]
    vision, prefill = dropper.vision, dropper.prefill
    calls = 1 if family in ONE_CALL or prompts == 1 else 2
    places = vision.places if vision else ()
    within = sum(place != "projected" for place in places)
    most = calls * within + len(places) - within + len(prefill.layers if prefill else ())
    most += bool(dropper.decode) + hasattr(prefill, "seed")  # a draw reads the pixels
    most += bool(dropper.key_tokens and prefill)  # number of key tokens
    if isinstance(prefill, SparseVLM) and prefill.scale is not None:
        most += 1 + 2 * prompts * len(
            prefill.layers
        )  # a rank waits by itself, and for its singular values
    if vision or dropper.key_tokens:
        if family == "llava_next" and any(isinstance(place, int) for place in places):
            most += 1  # tokens that blocks left and the model's packing cuts away
        if family == "qwen2_5_vl":  # attention windows: their pairs, lengths, and ends after drops
            most += 1 + calls * (1 + sum(isinstance(place, int) for place in places))
    return most


def require_few_waits(family: str, names: list[str]) -> None:
    counted = alone(COUNTED.format(family=family, names=names))
    for name, batches in counted.items():
        for prompts, waits in zip((1, len(FAMILIES[family].prompts)), batches, strict=True):
            reading = {line: n for line, n in waits.items() if line.startswith(READING)}
            assert sum(reading.values()) <= MOST_READING[family], (name, prompts, reading)
            rest = {line: n for line, n in waits.items() if line not in reading}
            assert sum(rest.values()) <= most_waits(name, family, prompts), (name, prompts, rest)


SHOWN = ("qwen2_5_vl",)  # family of the default tests


@pytest.mark.parametrize(
    "family",
    [pytest.param(family, marks=[pytest.mark.slow] * (family not in SHOWN)) for family in FAMILIES],
)
def test_a_method_of_three_stages_waits_once_per_drop_and_batch(family):
    require_few_waits(family, ["all_stages", "sparsevlm_fixed"])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_waits_once_per_drop_and_batch(family):
    names = DROPPERS if family in ("llava_next", "qwen2_5_vl", "internvl") else FEW
    require_few_waits(family, [name for name in names if fits(family, name)])
