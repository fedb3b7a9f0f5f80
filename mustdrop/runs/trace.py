"""A trace: how one sample was answered, token by token, as the figures read it.

A run's folder holds one file a traced sample, ``traces/<doc_id>.npz``: the ledger, and, where
``experiments/trace.py`` wrote it, what the text looked at and the pictures as the encoder saw them.
Knows no model; imports neither lmms-eval nor transformers.
"""

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from mustdrop.ledger import TokenLedger


@dataclass(frozen=True, eq=False)
class TextAttention:
    """What the text attended to when a prefill stage decided: head-mean attention A[text, vision].

    Attributes:
        positions: Original position of each vision token that was there, key tokens too.
        share: V_j over the sum of all V_j, with V_j = sum_t A[t, j] (arXiv:2411.10803, Eq. 8).
        largest: max_t A[t, j], the individual attention (Eq. 10).
        word: Which of ``Trace.words`` that is.
    """

    positions: Int[np.ndarray, " tokens"]
    share: Float[np.ndarray, " tokens"]
    largest: Float[np.ndarray, " tokens"]
    word: Int[np.ndarray, " tokens"]


@dataclass(frozen=True, eq=False)
class DecodeAttention:
    """What new tokens attended to in one layer while decoding, mean over heads and steps.

    Attributes:
        positions: Original position of each vision token in the layer's cache.
        vision: Attention to each of them.
        text: Attention to all the rest, the new tokens themselves included; with ``vision`` it sums
            to one.
    """

    positions: Int[np.ndarray, " tokens"]
    vision: Float[np.ndarray, " tokens"]
    text: float


@dataclass(frozen=True, eq=False)
class Trace:
    """One sample.

    Attributes:
        ledger: Which token lived where.
        looks: Layer -> what the text attended to when tokens were dropped after it.
        gazes: Layer -> what was attended to while decoding; empty if nothing was decoded, that is
            if the answer is a single token.
        words: The text tokens behind the last vision token.
        gamma: The global threshold, a share; NaN where it is not in use.
        alpha: The individual threshold, an attention weight; NaN where it is not in use.
        pictures: The images (crops, frames) as the encoder saw them, cropped and resized, so that
            its patches tile them; an encoded WebP each.
        region: Patches that hold the answer, where the benchmark knows them.
        answer: What was said when the trace was made; None for a ledger alone.
    """

    ledger: TokenLedger
    text_attention: dict[int, TextAttention] = field(default_factory=dict)
    decode_attention: dict[int, DecodeAttention] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    gamma: float = nan
    alpha: float = nan
    pictures: Sequence[bytes] = ()
    region: Bool[np.ndarray, "rows columns"] | None = None
    answer: str | None = None

    def picture(self, number: int = 0) -> Image.Image:
        """One of the pictures, decoded.

        Raises:
            ValueError: If there is none of that number.
        """
        if not 0 <= number < len(self.pictures):
            raise ValueError(f"picture must be in [0, {len(self.pictures)}), got {number}")
        return Image.open(io.BytesIO(self.pictures[number])).convert("RGB")

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        arrays: dict[str, Any] = self.ledger.arrays()
        for what, layers, fields in (
            ("look", self.text_attention, LOOK),
            ("gaze", self.decode_attention, GAZE),
        ):
            arrays[f"{what}/layers"] = np.array(sorted(layers), dtype=np.int16)
            for name, kind in fields.items():
                parts = [np.atleast_1d(getattr(layers[layer], name)) for layer in sorted(layers)]
                arrays[f"{what}/{name}"] = np.concatenate([np.empty(0), *parts]).astype(kind)
        for number, picture in enumerate(self.pictures):
            arrays[f"picture/{number}"] = np.frombuffer(picture, dtype=np.uint8)
        if self.region is not None:
            arrays["region"] = self.region
        if self.answer is not None:
            arrays["answer"] = np.array(self.answer)
        arrays["words"] = np.array(self.words, dtype=str)
        arrays["thresholds"] = np.array([self.gamma, self.alpha])
        temporary = path.with_name(f"{path.stem}.tmp.npz")
        np.savez_compressed(temporary, **arrays)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Trace":
        """Read a trace, or a ledger alone.

        Raises:
            FileNotFoundError: If the sample was not traced.
            ValueError: If the file is torn, or older than this format.
        """
        if not path.exists():
            raise FileNotFoundError(f"no trace {path}: experiments/trace.py makes them")
        try:
            with np.load(path) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (BadZipFile, zlib.error, EOFError, ValueError) as error:
            raise ValueError(f"{path} is no trace: {error}") from error
        gamma, alpha = arrays.get("thresholds", (nan, nan))
        pictures = sorted(int(name[8:]) for name in arrays if name.startswith("picture/"))
        ledger = TokenLedger.of_arrays(arrays, str(path))
        return cls(
            ledger,
            {
                layer: TextAttention(positions, *parts)
                for layer, positions, parts in _layers(arrays, "look", ledger.alive, ledger)
            },
            {
                layer: DecodeAttention(positions, vision, float(text[0]))
                for layer, positions, (vision, text) in _layers(
                    arrays, "gaze", ledger.cached, ledger
                )
            },
            tuple(str(word) for word in arrays.get("words", ())),
            float(gamma),
            float(alpha),
            tuple(arrays[f"picture/{number}"].tobytes() for number in pictures),
            arrays.get("region"),
            str(arrays["answer"]) if "answer" in arrays else None,
        )


# What is stored of each, layer after layer; thresholds are compared, so they keep their digits.
LOOK = {"share": np.float32, "largest": np.float32, "word": np.int16}
GAZE = {"vision": np.float16, "text": np.float32}


def _layers(
    arrays: Mapping[str, np.ndarray], what: str, held: Mapping[int, Tensor], ledger: TokenLedger
) -> Iterator[tuple[int, np.ndarray, list[np.ndarray]]]:
    """Per stored layer: the vision tokens that the ledger holds there, and their part of each."""
    fields = LOOK if what == "look" else GAZE
    at = dict.fromkeys(fields, 0)
    for layer in arrays.get(f"{what}/layers", np.empty(0)).tolist():
        positions = held[layer][ledger.vision[held[layer]]].numpy()
        parts = []
        for name in fields:
            size = 1 if name == "text" else len(positions)
            part = arrays[f"{what}/{name}"][at[name] : at[name] + size]
            parts.append(part.astype(np.float32) if part.dtype == np.float16 else part)
            at[name] += size
        yield layer, positions, parts
