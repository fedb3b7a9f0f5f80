"""Whether every number on the way to an answer is finite: noted on the device, read when asked.

A number that overflows (float16 ends at 65504) becomes infinite, then NaN, and a model of NaN
answers all the same. A note is one reduction: the largest magnitude, which is finite only if all
numbers are. Nothing here waits for the device until :meth:`FiniteNotes.require`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mustdrop.engine.exclusive import Only
from mustdrop.models import ModelAdapter

PIXELS = "the pixels"


class NotFinite(ValueError):
    """A number that is infinite or NaN on the way to a prompt's answer.

    Attributes:
        prompt: Index of the prompt in its batch.
        fault: Words that say what is not finite, in which dtype, and what to try.
    """

    def __init__(self, prompt: int, what: str, dtype: torch.dtype) -> None:
        name = str(dtype).removeprefix("torch.")
        remedy = "look at the weights of the checkpoint"
        if what == PIXELS:
            remedy = "look at the image and at the processor"
        elif dtype == torch.float16:
            remedy = "load the model in bfloat16 or float32 (model.dtype=bfloat16)"
        self.prompt = prompt
        self.fault = f"{what} are not finite in {name}; {remedy}"
        super().__init__(f"prompt {prompt}: {self.fault}")


@dataclass(frozen=True, eq=False)
class Note:
    """The largest magnitude among some numbers.

    Attributes:
        what: Name of the numbers.
        owner: Index of the prompt; of the image, as long as its prompt is not known.
        peak: Largest magnitude; NaN where a number is NaN.
    """

    what: str
    owner: int
    peak: Float[Tensor, ""]


@dataclass(eq=False)
class FiniteNotes:
    """Notes on one prefill and on what was decoded after it.

    Attributes:
        notes: Notes in the order of execution.
        pending: Notes on images whose prompts have not reached the language model yet.
        images: Number of images in earlier encoder calls for the same prompts.
        batch: Number of images in the last encoder call.
        later: Per prompt, the largest magnitude of all logits behind the first new token's.
        started: Whether the first new token's logits were noted.
    """

    notes: list[Note] = field(default_factory=list)
    pending: list[Note] = field(default_factory=list)
    images: int = 0
    batch: int = 0
    later: Tensor | None = None
    started: bool = False

    @contextmanager
    def attach(self, adapter: ModelAdapter) -> Iterator[None]:
        """Hooks on encoders, projector and model in place; removed on exit."""
        with ExitStack() as stack:
            for encoder in adapter.encoders:
                hook = Only(encoder, self._pixels)
                handle = encoder.register_forward_pre_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
            hook = Only(adapter.projector, self._features)
            stack.callback(adapter.projector.register_forward_pre_hook(hook).remove)
            hook = Only(adapter.model, self._logits)
            stack.callback(adapter.model.register_forward_hook(hook).remove)
            yield

    def explained(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """``method``, whose errors are :class:`NotFinite` where a number was not finite.

        Sampling and linear algebra stop at NaN with words of their own.
        """

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.notes, self.later = [], None  # an error may come before the prompts do
            try:
                return method(*args, **kwargs)
            except RuntimeError:
                self.require()
                raise

        return call

    def forget(self) -> None:
        """Leave nothing of images whose prompts failed on their way to the language model."""
        self.pending, self.images, self.batch = [], 0, 0

    def begin(
        self, images: Sequence[int], inputs: Float[Tensor, "batch seq dim"], pads: Sequence[int]
    ) -> None:
        """Start the notes of a prefill with those on its images and on what enters layer 0.

        Args:
            images: Number of images of each prompt.
            inputs: Input embeddings of the language model.
            pads: Padding in front of each prompt.
        """
        owners = [prompt for prompt, count in enumerate(images) for _ in range(count)]
        self.notes = [
            replace(note, owner=owners[note.owner])
            for note in self.pending
            if note.owner < len(owners)
        ]
        self.later, self.started = None, False
        self.forget()
        for prompt, pad in enumerate(pads):
            self.note("the embeddings at the language model's input", prompt, inputs[prompt, pad:])

    def note(self, what: str, prompt: int, values: Float[Tensor, "*shape"]) -> None:
        """Note numbers of one prompt; ``what`` is a plural."""
        if values.numel():
            self.notes.append(Note(what, prompt, torch.linalg.vector_norm(values, math.inf)))

    def note_image(self, what: str, image: int, values: Float[Tensor, "*shape"]) -> None:
        """Note numbers of one image of the last encoder call."""
        if values.numel():
            peak = torch.linalg.vector_norm(values, math.inf)
            self.pending.append(Note(what, self.images + image, peak))

    def flags(self) -> Bool[Tensor, " notes"]:
        """For each note, whether a number is not finite; on the device, which is not asked."""
        notes = self._all()
        groups: dict[str, list[Tensor]] = {}
        for index in _by_kind(notes):
            groups.setdefault(_kind(notes[index]), []).append(notes[index].peak)
        found = [torch.stack(peaks).isfinite().logical_not() for peaks in groups.values()]
        if not found:
            return torch.zeros(0, dtype=torch.bool)
        return torch.cat([flags.to(found[-1].device) for flags in found])

    def require(self, flags: Bool[Tensor, " notes"] | None = None) -> None:
        """Check that all numbers were finite.

        Args:
            flags: Result of :meth:`flags`, where it was copied to the host with other values; None:
                the device is asked.

        Raises:
            NotFinite: With the first place on the way at which one was not.
        """
        notes = self._all()
        marked = (self.flags() if flags is None else flags).tolist()
        found = [index for index, bad in zip(_by_kind(notes), marked, strict=True) if bad]
        if found:
            first = notes[min(found)]
            raise NotFinite(first.owner, first.what, first.peak.dtype)

    def _all(self) -> list[Note]:
        later = () if self.later is None else self.later
        behind = [Note("the logits of later tokens", at, peak) for at, peak in enumerate(later)]
        return [*self.notes, *behind]

    def _pixels(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        pixels = args[0] if args else kwargs["pixel_values"]
        self.images, self.batch = self.images + self.batch, len(pixels)
        self._note_images(PIXELS, pixels)

    def _features(self, module: nn.Module, args: tuple) -> None:
        if args:
            self._note_images("the features of the vision encoder", args[0])

    def _note_images(self, what: str, values: Float[Tensor, "images ..."]) -> None:
        for image, own in enumerate(values):
            self.note_image(what, image, own)

    def _logits(self, module: nn.Module, args: tuple, output: Any) -> None:
        logits = output[0] if isinstance(output, tuple) else output.logits
        peaks = torch.linalg.vector_norm(logits[:, -1], math.inf, dim=-1)
        if self.started:
            self.later = peaks if self.later is None else torch.maximum(self.later, peaks)
            return
        self.started = True
        for prompt, peak in enumerate(peaks):
            self.notes.append(Note("the logits of the first new token", prompt, peak))


def _kind(note: Note) -> str:
    return f"{note.peak.dtype} {note.peak.device}"


def _by_kind(notes: Sequence[Note]) -> list[int]:
    """Index of the notes, those of one dtype and device together: one tensor holds them."""
    return sorted(range(len(notes)), key=lambda index: _kind(notes[index]))
