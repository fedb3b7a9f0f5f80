"""One colour and one mark for each method, the same in every figure, on the page and in the docs.

Keyed by the name of a method, so that a method looks the same whatever stands beside it. Methods of
one family share a hue, and no two methods share both colour and mark. Controls and bounds are grey.
A method that is not listed gets a muted colour and a mark from a hash of its name: the same in
every figure, and never those of a listed one. Knows nothing about what is drawn, nor matplotlib.

The hues are Okabe and Ito's, which colour-blind readers tell apart, with brown and indigo added.
"""

from colorsys import hls_to_rgb
from dataclasses import dataclass
from hashlib import sha256
from typing import Final


@dataclass(frozen=True)
class Look:
    """How a method is drawn.

    Attributes:
        color: Colour, as ``#rrggbb``.
        marker: Mark, by matplotlib's letter; one of ``MARKS``.
        grey: Whether it is a control or a bound, drawn with a broken line.
    """

    color: str
    marker: str
    grey: bool = False


# Marks that can be filled, since a hollow one says that a budget was missed.
MARKS: Final = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "<", ">", "d", "8", "H")

FAMILIES: Final[dict[str, dict[str, Look]]] = {
    "MustDrop": {
        "mustdrop": Look("#d55e00", "o"),
        "mustdrop_official": Look("#d55e00", "s"),
        "mustdrop_merge": Look("#ef9a5f", "^"),
        "mustdrop_prefill": Look("#ef9a5f", "D"),
        "mustdrop_window": Look("#ef9a5f", "v"),
        "mustdrop_global": Look("#8f3f00", "P"),
        "mustdrop_individual": Look("#8f3f00", "X"),
        "mustdrop_no_keys": Look("#8f3f00", "p"),
    },
    "FastV": {"fastv": Look("#0072b2", "s"), "fastv_paper": Look("#5aa9dc", "D")},
    "SparseVLM": {
        "sparsevlm": Look("#b0588f", "^"),
        "sparsevlm_fixed": Look("#d492bd", "v"),
    },
    "[CLS] attention": {
        "cls_topk": Look("#008f68", "D"),
        "fastervlm": Look("#005a41", "s"),
        "visionzip": Look("#3fbf97", "P"),
        "vispruner": Look("#005a41", "X"),
    },
    "PruMerge": {
        "prumerge": Look("#3f9fd4", "v"),
        "prumerge_paper": Look("#3f9fd4", "^"),
        "prumerge_plus": Look("#1f6f9c", "p"),
        "prumerge_plus_paper": Look("#1f6f9c", "h"),
    },
    "PyramidDrop": {"pyramiddrop": Look("#c99a00", "P")},
    "ToMe": {"tome": Look("#5b4fa2", "h")},
    "DivPrune": {"divprune": Look("#a3215b", "X")},
    "VTW": {"vtw": Look("#7a5230", "p")},
    "controls and bounds": {
        "vanilla": Look("#1a1a1a", "*", grey=True),
        "random": Look("#666666", "X", grey=True),
        "uniform_grid": Look("#666666", "s", grey=True),
        "average_pool": Look("#666666", "D", grey=True),
        "keep_last": Look("#8c8c8c", "v", grey=True),
        "keep_centre": Look("#8c8c8c", "o", grey=True),
        "text_topk": Look("#8c8c8c", "P", grey=True),
        "oracle": Look("#404040", "^", grey=True),
        "anti_oracle": Look("#404040", "v", grey=True),
    },
}
KNOWN: Final = {name: look for family in FAMILIES.values() for name, look in family.items()}


def look_of(method: str) -> Look:
    """How a method is drawn; of a method with a control on the image, that of the method.

    Args:
        method: Its name, such as ``fastv`` or ``fastv, wrong image``.
    """
    name = method.split(",")[0]
    return KNOWN.get(name) or _unlisted(name)


def _unlisted(name: str) -> Look:
    """A muted colour, of which no listed method has any, and a mark."""
    digest = sha256(name.encode()).digest()
    hue = int.from_bytes(digest[:2], "big") / 65536
    parts = hls_to_rgb(hue, 0.42 + 0.16 * digest[2] / 255, 0.35)
    color = "#" + "".join(f"{round(255 * part):02x}" for part in parts)
    return Look(color, MARKS[digest[3] % len(MARKS)])
