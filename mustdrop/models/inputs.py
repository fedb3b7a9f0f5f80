"""Loads a processor, and sets what it makes of images and conversations. Knows no benchmark.

Images are read with PIL on every machine. Without this choice transformers would use torchvision
where it is installed, which resizes with other numbers.

Frames of videos are read with PIL for the same reason (:mod:`mustdrop.models.frame_processors`); a
video processor of another family is left out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import transformers
from jinja2 import TemplateError
from transformers import (
    PROCESSOR_MAPPING,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
)

try:
    from transformers import (
        CLIPImageProcessorPil,
        LlavaImageProcessorPil,
        VideoLlavaImageProcessor,
    )
    from transformers.image_processing_backends import PilBackend
except ImportError as error:
    raise ImportError(
        "loading a checkpoint with its processor needs transformers 5.4 or newer, whose image "
        f"processors can be chosen by backend; got {transformers.__version__}. TokenDropper itself "
        "works with 5.0 and newer"
    ) from error

from mustdrop.models.frame_processors import (
    FRAME_PROCESSORS,
    VIDEO,
    accepting,
    video_settings,
)
from mustdrop.models.pixel_limits import limit_pixels
from mustdrop.models.pixtral_processor import NAME as PIXTRAL
from mustdrop.models.pixtral_processor import pixtral_processor

BACKEND = "pil"
# Processors that put the first token in the middle of a prompt without an image, or refuse it.
NEED_IMAGES = ("PaliGemmaProcessor",)
PROBE = {"role": "user", "content": [{"type": "text", "text": "word"}]}
# Image processors that read images with PIL; the second has no other backend.
PIL_KINDS = (PilBackend, VideoLlavaImageProcessor)
# Image processors that resize the shorter edge and crop the centre; the second can pad as well.
CROPPING = (CLIPImageProcessorPil, LlavaImageProcessorPil)


def load_processor(folder: str | Path, config: PreTrainedConfig) -> Any:
    """Processor of a checkpoint, for images and text, and videos where their reader is known.

    Args:
        folder: Folder of the checkpoint.
        config: Config of its model.

    Raises:
        ValueError: If the processor needs a video processor or a package that is not installed, or
            its image processor has no PIL backend.
    """
    if processor_class(Path(folder)) == PIXTRAL:  # needs torchvision, if transformers loads it
        kind: Any = pixtral_processor()
    else:
        kind = PROCESSOR_MAPPING.get(type(config), None)
    parts = [] if kind is None else kind.get_attributes()
    try:
        if getattr(kind, "__name__", None) == PIXTRAL:
            processor = _built(kind, Path(folder))
        elif kind is None or VIDEO not in parts:
            processor = AutoProcessor.from_pretrained(folder, backend=BACKEND)
        elif kind.__name__ in FRAME_PROCESSORS:
            processor = _built(kind, Path(folder))
        elif parts[-1] == VIDEO:  # the class takes its parts by position
            processor = without_video(kind).from_pretrained(folder, backend=BACKEND)
        else:
            raise ValueError(f"{kind.__name__} cannot be built without a video processor")
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"its processor needs a package that is missing: {reason}") from error
    images = getattr(processor, "image_processor", None)
    if images is not None and not isinstance(images, PIL_KINDS):
        raise ValueError(
            f"{type(images).__name__} does not read images with PIL, so its pixels would depend on "
            "the version of torchvision"
        )
    return processor


def processor_class(folder: Path) -> str | None:
    """Name of the processor's class in a checkpoint's files; None: they name none."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            settings = json.loads((folder / name).read_text(encoding="utf-8"))
            if "processor_class" in settings:
                return settings["processor_class"]
    return None


def _built(kind: Any, folder: Path) -> Any:
    """A processor made from its parts; a video processor is a :class:`FrameProcessor`."""
    settings, _ = kind.get_processor_dict(folder)
    made: dict[str, Any] = {
        "image_processor": AutoImageProcessor.from_pretrained(folder, backend=BACKEND),
        "tokenizer": AutoTokenizer.from_pretrained(folder),
    }
    if VIDEO in kind.get_attributes():
        made[VIDEO] = FRAME_PROCESSORS[kind.__name__](video_settings(folder))
    parts = [made[name] for name in kind.get_attributes()]
    return accepting(kind).from_args_and_dict(parts, settings)


def without_video(kind: type) -> type:
    """A subclass of a processor's class that neither loads nor requires a video processor."""

    def get_attributes(cls: Any) -> list[str]:
        return [name for name in kind.get_attributes() if name != VIDEO]

    body = {"get_attributes": classmethod(get_attributes), "__module__": kind.__module__}
    return type(kind.__name__, (kind,), body)


@dataclass(frozen=True)
class Inputs:
    """What a model gets of images and conversations, where it differs from its checkpoint's files.

    Attributes:
        resize: ``hub``: as the checkpoint's files say. ``pad``: an image is first padded to a
            square with the mean colour of its processor, as the authors of LLaVA-1.5 do; the hub's
            processor of that model crops the centre instead.
        system: System sentence in front of each conversation; None: none, or the template's own.
        template: Chat template in the language Jinja; None: the checkpoint's.
        min_pixels: Least number of pixels of an image for models that keep its aspect ratio, or of
            its tiles together for models that choose their number; None: the checkpoint's. A frame
            of a video has the same limits.
        max_pixels: Largest number of pixels of an image for these models.
        frames: Number of frames that the model sees of a video; None: videos are refused.
    """

    resize: Literal["hub", "pad"] = "hub"
    system: str | None = None
    template: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    frames: int | None = None

    def apply(self, processor: Any) -> None:
        """Change a processor in place.

        Raises:
            ValueError: If the processor has no such option, or the system sentence does not reach
                the prompt; the message names the field.
        """
        if self.resize == "pad":
            processor.image_processor = _padding(processor.image_processor)
        videos = getattr(processor, VIDEO, None)
        if self.min_pixels is not None or self.max_pixels is not None:
            limit_pixels(processor.image_processor, self.min_pixels, self.max_pixels)
            if videos is not None:
                limit_pixels(videos.images, self.min_pixels, self.max_pixels)
        if self.frames is not None:
            if videos is None:
                name = type(processor).__name__
                raise ValueError(f"model.frames must be null: {name} reads no videos")
            videos.frames = self.frames
        if self.template is not None:
            processor.chat_template = self.template
        if self.system is not None:
            self._add_system(processor)

    def _add_system(self, processor: Any) -> None:
        """Put the system sentence into the template, in front of the conversation's messages."""
        template, tokenizer = processor.chat_template, processor.tokenizer
        if not isinstance(template, str):
            raise ValueError("model.system must be null: the processor has no chat template")
        unknown = tokenizer.unk_token_id
        ids = tokenizer.encode(self.system, add_special_tokens=False)
        if unknown is not None and unknown in ids:
            raise ValueError(
                f"model.system must be null: the tokenizer does not know {ids.count(unknown)} of "
                f"the {len(ids)} tokens of {self.system!r}"
            )
        message = {"role": "system", "content": [{"type": "text", "text": self.system}]}
        text = json.dumps(message, ensure_ascii=False)
        # The plus keeps a line break at the start of the template.
        processor.chat_template = f"{{% set messages = [{text}] + messages +%}}{template}"
        try:
            prompt = processor.apply_chat_template([PROBE], tokenize=False)
        except (TemplateError, TypeError, KeyError) as error:
            raise ValueError(f"model.system: the chat template refuses it: {error}") from error
        if self.system not in prompt:
            raise ValueError(
                "model.system must be null: the chat template leaves it out and makes the prompt "
                f"{prompt!r}"
            )


def require_images(processor: Any, images: Sequence[Any]) -> None:
    """Check that a prompt has an image, if the processor makes a wrong prompt without one.

    Raises:
        ValueError: If there is none.
    """
    if not images and type(processor).__name__ in NEED_IMAGES:
        raise ValueError(f"{type(processor).__name__} makes prompts with images only, got text")


def _padding(images: Any) -> LlavaImageProcessorPil:
    """The image processor with padding to a square in front, otherwise with the same settings."""
    if type(images) not in CROPPING:
        raise ValueError(
            f"model.resize must be hub: {type(images).__name__} has no padding to a square"
        )
    settings: dict[str, Any] = {**images.to_dict(), "do_pad": True}
    del settings["image_processor_type"]
    return LlavaImageProcessorPil(**settings)
