"""Trace of one sample: its ledger, attention and images, token by token, for the figures.

A run's folder holds one file per traced sample, ``traces/<doc_id>.npz``, with the ledger. A file
that ``mustdrop trace`` wrote also holds attention and the images as the encoder saw them.
Knows no model; imports neither lmms-eval nor transformers.
"""

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    """Text-to-vision attention at a prefill drop: head-mean attention A[text, vision].

    Attributes:
        positions: Original position of each vision token alive there, including key tokens.
        share: Global attention V_j / sum_j V_j, with V_j = sum_t A[t, j] (arXiv:2411.10803, Eq. 8).
        largest: Individual attention max_t A[t, j] (Eq. 10).
        word: Index in ``Trace.words`` of the text token with the largest attention.
    """

    positions: Int[np.ndarray, " tokens"]
    share: Float[np.ndarray, " tokens"]
    largest: Float[np.ndarray, " tokens"]
    word: Int[np.ndarray, " tokens"]


@dataclass(frozen=True, eq=False)
class DecodeAttention:
    """Attention of new tokens in one layer while decoding, mean over heads and steps.

    Attributes:
        positions: Original position of each vision token in the layer's cache.
        vision: Attention to each of these tokens.
        text: Attention to all other tokens, new ones included; ``vision`` and ``text`` sum to one.
    """

    positions: Int[np.ndarray, " tokens"]
    vision: Float[np.ndarray, " tokens"]
    text: float


@dataclass(frozen=True, eq=False)
class Trace:
    """Trace of one sample.

    Attributes:
        ledger: Ledger of the sample's tokens.
        text_attention: Attention of the text by the layer after which tokens were dropped.
        decode_attention: Attention while decoding by layer; empty if the answer is a single token,
            since nothing is decoded then.
        words: Text tokens behind the last vision token.
        values: Numbers and arrays that the strategies give for the trace, by name; for MustDrop
            its thresholds in use: ``gamma``, a share of attention, and ``alpha``, a weight.
        pictures: Images (crops, frames) as the encoder saw them, each as an encoded WebP; they are
            cropped and resized so that the encoder's patches tile them.
        region: Mask of the patches that show the answer, where the benchmark knows them.
        answer: Answer of the model when the trace was made; None if only the ledger was kept.
    """

    ledger: TokenLedger
    text_attention: dict[int, TextAttention] = field(default_factory=dict)
    decode_attention: dict[int, DecodeAttention] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    values: Mapping[str, Float[np.ndarray, "..."]] = field(default_factory=dict)
    pictures: Sequence[bytes] = ()
    region: Bool[np.ndarray, "rows columns"] | None = None
    answer: str | None = None

    def threshold(self, name: str) -> float | None:
        """Number of this name among ``values``; None if the method has none."""
        return float(self.values[name]) if name in self.values else None

    def picture(self, number: int = 0) -> Image.Image:
        """Decoded picture of this number.

        Raises:
            ValueError: If there is no picture of this number.
        """
        if not 0 <= number < len(self.pictures):
            raise ValueError(f"picture must be in [0, {len(self.pictures)}), got {number}")
        return Image.open(io.BytesIO(self.pictures[number])).convert("RGB")

    def save(self, path: Path) -> None:
        """Write the trace to a file; a failure leaves no partial file at this path."""
        arrays: dict[str, Any] = self.ledger.arrays()
        for kind, layers, fields in (
            ("look", self.text_attention, LOOK),
            ("gaze", self.decode_attention, GAZE),
        ):
            arrays[f"{kind}/layers"] = np.array(sorted(layers), dtype=np.int16)
            for name, dtype in fields.items():
                parts = [np.atleast_1d(getattr(layers[layer], name)) for layer in sorted(layers)]
                arrays[f"{kind}/{name}"] = np.concatenate([np.empty(0), *parts]).astype(dtype)
        for number, picture in enumerate(self.pictures):
            arrays[f"picture/{number}"] = np.frombuffer(picture, dtype=np.uint8)
        if self.region is not None:
            arrays["region"] = self.region
        if self.answer is not None:
            arrays["answer"] = np.array(self.answer)
        arrays["words"] = np.array(self.words, dtype=str)
        for name, value in self.values.items():
            arrays[f"value/{name}"] = np.asarray(value)
        temporary = path.with_name(f"{path.stem}.tmp.npz")
        np.savez_compressed(temporary, **arrays)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Trace":
        """Read a trace file, which may hold the ledger only.

        Raises:
            FileNotFoundError: If the sample was not traced.
            ValueError: If the file is torn, or in an older format.
        """
        if not path.exists():
            raise FileNotFoundError(f"there is no trace {path}; mustdrop trace writes traces")
        try:
            with np.load(path) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (BadZipFile, zlib.error, EOFError, ValueError) as error:
            raise ValueError(f"{path} is not a trace: {error}") from error
        values = {n.partition("/")[2]: a for n, a in arrays.items() if n.startswith("value/")}
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
            values,
            tuple(arrays[f"picture/{number}"].tobytes() for number in pictures),
            arrays.get("region"),
            str(arrays["answer"]) if "answer" in arrays else None,
        )


# Stored fields of each kind of attention. Values compared with thresholds keep float32.
LOOK = {"share": np.float32, "largest": np.float32, "word": np.int16}
GAZE = {"vision": np.float16, "text": np.float32}


def _layers(
    arrays: Mapping[str, np.ndarray], kind: str, held: Mapping[int, Tensor], ledger: TokenLedger
) -> Iterator[tuple[int, np.ndarray, list[np.ndarray]]]:
    """Each stored layer with the positions of its vision tokens and their values of each field."""
    fields = LOOK if kind == "look" else GAZE
    start = dict.fromkeys(fields, 0)
    for layer in arrays.get(f"{kind}/layers", np.empty(0)).tolist():
        positions = held[layer][ledger.vision[held[layer]]].numpy()
        parts = []
        for name in fields:
            size = 1 if name == "text" else len(positions)
            part = arrays[f"{kind}/{name}"][start[name] : start[name] + size]
            parts.append(part.astype(np.float32) if part.dtype == np.float16 else part)
            start[name] += size
        yield layer, positions, parts
