"""Colour and marker of each method, the same in every figure, on the report page and in the docs.

A look depends only on the name of the method, not on the other methods in a figure. Methods of one
family have the same hue in different shades. Controls and bounds are grey. All colours are dark
enough for text on white.

A method that is not listed gets a muted colour and a marker from a hash of its name: the same in
every figure, and a colour that no listed method has. Knows nothing about drawing or matplotlib.

The hues are those of Okabe and Ito, which colour-blind readers can distinguish, with brown and
indigo added.
"""

from colorsys import hls_to_rgb
from dataclasses import dataclass
from hashlib import sha256
from typing import Final


@dataclass(frozen=True)
class MethodLook:
    """Look of a method in figures.

    Attributes:
        color: Colour, as ``#rrggbb``.
        marker: Marker code of matplotlib; one of ``MARKS``.
        grey: Whether the method is a control or a bound, which gets a dashed line.
    """

    color: str
    marker: str
    grey: bool = False


# Only markers that can be filled: a hollow marker means that a budget was missed.
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
        "mustdrop_qwen": MethodLook("#b5532a", "h"),
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
        "uniform_frames": MethodLook("#525252", "d", grey=True),
        "average_frames": MethodLook("#848484", "p", grey=True),
        "every_other_frame": MethodLook("#6c6c6c", "<", grey=True),
        "text_topk": MethodLook("#737373", "P", grey=True),
        "oracle": MethodLook("#404040", "^", grey=True),
        "anti_oracle": MethodLook("#595959", "v", grey=True),
    },
}
KNOWN: Final = {name: look for family in FAMILIES.values() for name, look in family.items()}


def look_of(method: str) -> MethodLook:
    """Look of a method; a control on the image does not change it.

    Args:
        method: Name of the method, such as ``fastv`` or ``fastv, wrong image``.
    """
    name = method.split(",")[0]
    return KNOWN.get(name) or _unlisted(name)


def _unlisted(name: str) -> MethodLook:
    """Muted colour, which no listed method has, and a marker."""
    digest = sha256(name.encode()).digest()
    hue = int.from_bytes(digest[:2], "big") / 65536
    parts = hls_to_rgb(hue, 0.32 + 0.1 * digest[2] / 255, 0.35)
    color = "#" + "".join(f"{round(255 * part):02x}" for part in parts)
    return MethodLook(color, MARKS[digest[3] % len(MARKS)])
