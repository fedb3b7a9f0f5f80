"""One colour and one mark for each method, the same in every figure, on the page and in the docs.

Keyed by the name of a method, so that a method looks the same whatever stands beside it. Methods of
one family share a hue, in shades of their own. Controls and bounds are grey. All are dark enough to
write a name in, on white.

A method that is not listed gets a muted colour and a mark from a hash of its name: the same in
every figure, and never those of a listed one. Knows nothing about what is drawn, nor matplotlib.

The hues are Okabe and Ito's, which colour-blind readers tell apart, with brown and indigo added.
"""

from colorsys import hls_to_rgb
from dataclasses import dataclass
from hashlib import sha256
from typing import Final


@dataclass(frozen=True)
class MethodLook:
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

FAMILIES: Final[dict[str, dict[str, MethodLook]]] = {
    "MustDrop": {
        "mustdrop": MethodLook("#d55e00", "s"),
        "mustdrop_official": MethodLook("#b24a00", "o"),
        "mustdrop_merge": MethodLook("#d87a38", "^"),
        "mustdrop_prefill": MethodLook("#c4693a", "D"),
        "mustdrop_window": MethodLook("#d9752b", "v"),
        "mustdrop_global": MethodLook("#8f3f00", "P"),
        "mustdrop_individual": MethodLook("#6b2f00", "X"),
        "mustdrop_no_keys": MethodLook("#a8623a", "p"),
    },
    "FastV": {"fastv": MethodLook("#0072b2", "o"), "fastv_paper": MethodLook("#4a8fd0", "D")},
    "SparseVLM": {
        "sparsevlm": MethodLook("#b0588f", "^"),
        "sparsevlm_fixed": MethodLook("#c278a7", "v"),
    },
    "[CLS] attention": {
        "cls_topk": MethodLook("#008f68", "D"),
        "fastervlm": MethodLook("#005a41", "s"),
        "visionzip": MethodLook("#2a9d7a", "P"),
        "vispruner": MethodLook("#33745f", "X"),
    },
    "PruMerge": {
        "prumerge": MethodLook("#0097a7", "v"),
        "prumerge_paper": MethodLook("#1f8f9e", "^"),
        "prumerge_plus": MethodLook("#006978", "p"),
        "prumerge_plus_paper": MethodLook("#004b57", "h"),
    },
    "PyramidDrop": {"pyramiddrop": MethodLook("#b08600", "P")},
    "ToMe": {"tome": MethodLook("#5b4fa2", "h")},
    "DivPrune": {"divprune": MethodLook("#a3215b", "X")},
    "VTW": {"vtw": MethodLook("#7a5230", "p")},
    "controls and bounds": {
        "vanilla": MethodLook("#1a1a1a", "*", grey=True),
        "random": MethodLook("#666666", "X", grey=True),
        "uniform_grid": MethodLook("#4d4d4d", "s", grey=True),
        "average_pool": MethodLook("#7d7d7d", "D", grey=True),
        "keep_last": MethodLook("#8c8c8c", "v", grey=True),
        "keep_centre": MethodLook("#949494", "o", grey=True),
        "text_topk": MethodLook("#737373", "P", grey=True),
        "oracle": MethodLook("#404040", "^", grey=True),
        "anti_oracle": MethodLook("#595959", "v", grey=True),
    },
}
KNOWN: Final = {name: look for family in FAMILIES.values() for name, look in family.items()}


def look_of(method: str) -> MethodLook:
    """How a method is drawn; of a method with a control on the image, that of the method.

    Args:
        method: Its name, such as ``fastv`` or ``fastv, wrong image``.
    """
    name = method.split(",")[0]
    return KNOWN.get(name) or _unlisted(name)


def _unlisted(name: str) -> MethodLook:
    """A muted colour, of which no listed method has any, and a mark."""
    digest = sha256(name.encode()).digest()
    hue = int.from_bytes(digest[:2], "big") / 65536
    parts = hls_to_rgb(hue, 0.32 + 0.1 * digest[2] / 255, 0.35)
    color = "#" + "".join(f"{round(255 * part):02x}" for part in parts)
    return MethodLook(color, MARKS[digest[3] % len(MARKS)])
