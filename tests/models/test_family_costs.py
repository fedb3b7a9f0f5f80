"""FLOPs in closed form equal torch's counter to the integer, for every family and stage."""

from dataclasses import replace

import pytest
import torch
from families import FAMILIES, OTHER_CLASSES, Image
from family_droppers import FEW, FIRST, FITTING_OF, LATE, TWINS, fits
from torch.utils.flop_counter import FlopCounterMode

from mustdrop import TokenDropper, cost
from mustdrop.evaluation.metrics import CostMeter
from mustdrop.profiling.counting import UNSEEN
from mustdrop.vision.local_merge import LocalMerge

MADE = FAMILIES | OTHER_CLASSES
# Default tests, where these are not all of FEW. Video-LLaVA's encoders are those of LLaVA-NeXT, but
# for the [CLS] of frames.
SOME = {
    **dict.fromkeys(MADE.keys() - {*FIRST}, ("all_stages",)),
    "video_llava": (None, "fastv", "local_merge", "all_stages"),
    **dict.fromkeys(LATE, (None, "all_stages")),
    **dict.fromkeys(TWINS, ()),
}
CASES = [
    pytest.param(
        family,
        name,
        marks=[pytest.mark.slow] if name not in SOME.get(family, (None, *FEW)) else [],
    )
    for family in MADE
    for name in (None, *FEW)
    if name is None or fits(family, name)
]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_closed_forms_equal_the_counter(family, name):
    made = MADE[family]
    model = made.model("eager")
    meter = CostMeter.from_model(model)
    for parts in made.prompts:
        if family in ("mistral3", "pixtral") and sum(isinstance(p, Image) for p in parts) > 1:
            continue  # their encoders compute the masked pairs of patches of two images, too
        inputs = made.inputs(model, parts)
        dropper = TokenDropper() if name is None else FITTING_OF[family][name]
        if isinstance(dropper.vision, LocalMerge) and not model.config.model_type.startswith(
            "qwen"
        ):
            # crops of unlike lengths are padded in one batch, and the counter counts the padding
            dropper = replace(dropper, vision=replace(dropper.vision, crops="fewest"))
        counter = FlopCounterMode(display=False, custom_mapping=UNSEEN)
        with dropper.attach(model) as run, torch.no_grad(), counter:
            model(**inputs, logits_to_keep=1)
        line = meter.measure(run.ledgers[0], None)
        assert counter.get_total_flops() == cost.flops(line["prefill_macs"] + line["encoder_macs"])
        if name is None:
            assert line["encoder_macs"] == line["vanilla_encoder_macs"]
            assert line["prefill_macs"] == line["vanilla_macs"]
