"""Notes on whether all numbers on the way to an answer are finite, kept on the device.

A number that overflows (float16 ends at 65504) becomes infinite, then NaN, and a model full of NaN
still answers. A note is one reduction: the least and the greatest number, which are finite only if
all numbers are. Nothing here waits for the device until :meth:`FiniteNotes.require`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mustdrop.engine.exclusive import Only
from mustdrop.models import EncoderPart, ModelAdapter

PIXELS = "the pixels"


class NotFinite(ValueError):
    """A number that is infinite or NaN on the way to a prompt's answer.

    Attributes:
        prompt: Index of the prompt in its batch.
        fault: Sentence that names the numbers, their dtype, and what to try.
    """

    def __init__(self, prompt: int, numbers: str, dtype: torch.dtype) -> None:
        dtype_name = str(dtype).removeprefix("torch.")
        remedy = "look at the weights of the checkpoint"
        if numbers == PIXELS:
            remedy = "look at the image and at the processor"
        elif dtype == torch.float16:
            remedy = "load the model in bfloat16 or float32 (model.dtype=bfloat16)"
        self.prompt = prompt
        self.fault = f"{numbers} are not finite in {dtype_name}; {remedy}"
        super().__init__(f"prompt {prompt}: {self.fault}")


@dataclass(frozen=True, eq=False)
class Note:
    """The ends of the range of some numbers.

    Attributes:
        name: Name of the numbers.
        owner: Index of the prompt, or of the image while its prompt is not known.
        ends: Least and greatest number; NaN where a number is NaN.
    """

    name: str
    owner: int
    ends: Sequence[Float[Tensor, ""]]


@dataclass(eq=False)
class FiniteNotes:
    """Notes on one prefill and on what was decoded after it.

    Attributes:
        notes: Notes in the order of execution.
        pending: Notes on images whose prompts have not reached the language model yet.
        images: Number of images in earlier encoder calls for the same prompts.
        batch: Number of images in the last encoder call.
        later: Largest magnitude of all logits after the first new token's, per prompt.
        started: Whether the logits of the first new token were noted.
        sequences: Number of sequences of each prompt, which are rows of the logits.
    """

    notes: list[Note] = field(default_factory=list)
    pending: list[Note] = field(default_factory=list)
    images: int = 0
    batch: int = 0
    later: Tensor | None = None
    started: bool = False
    sequences: int = 1

    @contextmanager
    def attach(self, adapter: ModelAdapter) -> Iterator[None]:
        """Add hooks to encoders, projector and model; remove them on exit."""
        with ExitStack() as stack:
            read = adapter.facts.whole_encoder is None  # otherwise its images may be others
            for encoder in adapter.encoders if read else ():
                hook = Only(encoder.module, self._pixels(encoder))
                handle = encoder.module.register_forward_pre_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
            if read:
                hook = Only(adapter.feature_entry, self._features)
                stack.callback(adapter.feature_entry.register_forward_pre_hook(hook).remove)
            hook = Only(adapter.model, self._logits)
            stack.callback(adapter.model.register_forward_hook(hook).remove)
            yield

    def explained(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``method`` to raise :class:`NotFinite` for its errors if a number was not finite.

        Sampling and linear algebra stop at NaN with other messages.
        """

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.notes, self.later = [], None  # an error may be raised before :meth:`begin`
            try:
                return method(*args, **kwargs)
            except RuntimeError:
                self.require()
                raise

        return call

    def forget(self) -> None:
        """Discard notes on images whose prompts failed before they reached the language model."""
        self.pending, self.images, self.batch = [], 0, 0

    def begin(
        self,
        owners: Sequence[int],
        inputs: Float[Tensor, "batch seq dim"],
        pads: Sequence[int],
        sequences: int = 1,
    ) -> None:
        """Start the notes of a prefill with those on its images and on the input of layer 0.

        Args:
            owners: Index of the prompt of each image, in the order of the encoders' calls.
            inputs: Input embeddings of the language model.
            pads: Padding in front of each prompt.
            sequences: Number of sequences that are decoded for each prompt.
        """
        self.sequences = sequences
        self.notes = [
            replace(note, owner=owners[note.owner])
            for note in self.pending
            if note.owner < len(owners)
        ]
        self.later, self.started = None, False
        self.forget()
        for prompt, pad in enumerate(pads):
            self.note("the embeddings at the language model's input", prompt, inputs[prompt, pad:])

    def note(self, name: str, prompt: int, values: Float[Tensor, "*shape"]) -> None:
        """Note numbers of one prompt; ``name`` is a plural noun."""
        if values.numel():
            self.notes.append(Note(name, prompt, values.detach().aminmax()))

    def note_image(self, name: str, image: int, values: Float[Tensor, "*shape"]) -> None:
        """Note numbers of one image, by its index among all images of the batch."""
        if values.numel():
            self.pending.append(Note(name, image, values.detach().aminmax()))

    def flags(self) -> Bool[Tensor, " notes"]:
        """Whether each note has a number that is not finite; does not wait for the device."""
        notes = self._all()
        groups: dict[str, list[Tensor]] = {}
        for index in _by_kind(notes):
            groups.setdefault(_kind(notes[index]), []).extend(notes[index].ends)
        flags = [
            torch.stack(ends).isfinite().view(-1, 2).all(1).logical_not()
            for ends in groups.values()
        ]
        if not flags:
            return torch.zeros(0, dtype=torch.bool)
        return torch.cat([group.to(flags[-1].device) for group in flags])

    def require(self, flags: Bool[Tensor, " notes"] | None = None) -> None:
        """Check that all numbers were finite.

        Args:
            flags: Result of :meth:`flags`, if it was copied to the host with other values; None:
                read it from the device.

        Raises:
            NotFinite: With the first numbers on the way that were not finite.
        """
        notes = self._all()
        marked = (self.flags() if flags is None else flags).tolist()
        faults = [index for index, bad in zip(_by_kind(notes), marked, strict=True) if bad]
        if faults:
            first = notes[min(faults)]
            raise NotFinite(first.owner, first.name, first.ends[0].dtype)

    def _all(self) -> list[Note]:
        later = () if self.later is None else self.later
        return [
            *self.notes,
            *(Note("the logits of later tokens", prompt, (p, p)) for prompt, p in enumerate(later)),
        ]

    def _pixels(self, encoder: EncoderPart) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            pixels = encoder.pixels(args, kwargs)
            self.images, self.batch = self.images + self.batch, len(pixels)
            self._note_images(PIXELS, pixels)

        return hook

    def _features(self, module: nn.Module, args: tuple) -> None:
        if args:
            self._note_images("the features of the vision encoder", args[0])

    def _note_images(self, name: str, values: Sequence[Tensor] | Tensor) -> None:
        for image, image_values in enumerate(values):
            self.note_image(name, self.images + image, image_values)

    def _logits(self, module: nn.Module, args: tuple, output: Any) -> None:
        logits = output[0] if isinstance(output, tuple) else output.logits
        # of a prompt the last token's, of later text all
        noted = logits if self.started else logits[:, -1:]
        peaks = noted.detach().flatten(1).abs().amax(-1)
        peaks = peaks.view(-1, self.sequences).amax(1)  # amax keeps NaN
        if self.started:
            self.later = peaks if self.later is None else torch.maximum(self.later, peaks)
            return
        self.started = True
        for prompt, peak in enumerate(peaks):
            self.notes.append(Note("the logits of the first new token", prompt, (peak, peak)))


def _kind(note: Note) -> str:
    return f"{note.ends[0].dtype} {note.ends[0].device}"


def _by_kind(notes: Sequence[Note]) -> list[int]:
    """Indices of the notes, grouped by dtype and device: one tensor holds a group."""
    return sorted(range(len(notes)), key=lambda index: _kind(notes[index]))
