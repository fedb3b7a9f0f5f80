"""Where text looks in every layer of the plain model, its sinks, and which method keeps them.

Eager attention is used, because it returns the probabilities.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.real_weights.prompts import StudyPrompts, answered

KINDS = ("system", "vision", "text")
LATE = 1 / 3  # share of the depth from which on the sink among vision tokens is looked for


def attention_row(study: StudyPrompts, methods: Sequence[str], index: int) -> dict[str, Any]:
    """Measure one question.

    shares: Layer -> share of the attention of the text behind the image on the tokens before the
        image, on vision tokens, and on the text behind it; mean over heads and text tokens.
    last: The same for the prompt's last token alone, whose attention FastV ranks by.
    first: Layer -> share of the text's attention on the prompt's first token.
    top: Layer -> largest share of the attention on vision tokens that one vision token receives.
    massive: Layer -> largest activation at its input over the median one, and the token's kind
        (``first`` is the prompt's first token).
    sink: Vision token with most attention from text in the last two thirds of the layers, as a
        flat patch; ``sink_on_object``: whether it shows an object.
    keeps: Method -> whether that token reaches the last layer; ``kept``: number of vision tokens
        that do.
    """
    inputs = study.prompt(index)
    row = _looks(study.network(attention="eager"), inputs)
    sink = row["sink"]
    row["sink_on_object"] = bool(study.objects(index)[sink])
    row |= {"index": index, "keeps": {}, "kept": {}}
    for method in methods:
        run, _, _ = answered(study.network(), study.dropper(method), inputs)
        ledger = run.ledgers[0]
        alive = ledger.alive[ledger.depth - 1]
        slot = ledger.vision.nonzero().flatten()[sink]
        row["keeps"][method] = bool((alive == slot).any())
        row["kept"][method] = int(ledger.vision[alive].sum())
    return row


@torch.inference_mode()
def _looks(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    out = model(**inputs, output_attentions=True, output_hidden_states=True, use_cache=False)
    vision = inputs["input_ids"][0] == model.config.image_token_id
    slots = vision.nonzero().flatten()
    first, last = int(slots[0]), int(slots[-1])
    row: dict[str, Any] = {"shares": [], "last": [], "first": [], "top": [], "massive": []}
    depth = len(out.attentions)
    received = torch.zeros(len(slots))
    for layer, weights in enumerate(out.attentions):
        text = weights[0, :, last + 1 :].float().mean(0)
        row["shares"].append(_by_kind(text.mean(0), first, last))
        row["last"].append(_by_kind(text[-1], first, last))
        row["first"].append(float(text[:, 0].mean()))
        seen = text[:, first : last + 1].mean(0)
        row["top"].append(float(seen.max() / seen.sum()))
        if layer >= LATE * depth:
            received += seen
        row["massive"].append(_massive(out.hidden_states[layer][0].float(), first, last))
    row["sink"] = int(received.argmax())
    return row


def _by_kind(share: Float[Tensor, " tokens"], first: int, last: int) -> list[float]:
    parts = share[:first], share[first : last + 1], share[last + 1 :]
    return [float(part.sum()) for part in parts]


def _massive(hidden: Float[Tensor, "tokens dim"], first: int, last: int) -> dict[str, Any]:
    size = hidden.abs()
    position = int(size.amax(1).argmax())
    kind = KINDS[(position >= first) + (position > last)]
    return {
        "ratio": float(size.max() / size.median()),
        "token": "first" if position == 0 else kind,
    }
