"""What the vision encoder sees of an image: a probe with a coloured border, and the first image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor
from transformers.utils.constants import (
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from experiments.doctor.findings import Finding
from mustdrop.evaluation.trace import encoder_images
from mustdrop.models.base import ModelAdapter

SIDES: Mapping[str, tuple[int, int, int]] = {
    "left": (220, 30, 30), "right": (30, 60, 220), "top": (30, 190, 60), "bottom": (230, 210, 40),
}  # fmt: skip
SIZE, BORDER = (480, 320), 32  # of the probe, in pixels
INSIDE = (128, 128, 128)
NEAR = 0.25  # largest distance of a channel from a colour, of 1
LEAST = 0.3  # share of a border that counts as seen
# Kind of encoder -> mean and deviation of the colours with which such encoders are trained.
STATISTICS = {
    "clip_vision_model": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    "qwen2_vl": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    "qwen2_5_vl": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    "siglip_vision_model": (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD),
}
SQUARE = 1.02  # ratio of the sides up to which an image counts as square
SPREAD = 0.1  # values may lie this far outside [0, 1]: resizing overshoots at edges


def probe() -> Image.Image:
    """A grey image with a border of another colour at each side, wider than high."""
    image = Image.new("RGB", SIZE, INSIDE)
    draw, (width, height) = ImageDraw.Draw(image), SIZE
    draw.rectangle((0, 0, width, BORDER - 1), fill=SIDES["top"])
    draw.rectangle((0, height - BORDER, width, height), fill=SIDES["bottom"])
    draw.rectangle((0, BORDER, BORDER - 1, height - BORDER - 1), fill=SIDES["left"])
    draw.rectangle((width - BORDER, BORDER, width, height - BORDER - 1), fill=SIDES["right"])
    return image


def seen(adapter: ModelAdapter, processor: Any, inputs: Mapping[str, Any]) -> list[Tensor]:
    """Images as the encoder gets them, with the normalisation undone, each [3, height, width]."""
    images = processor.image_processor
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (images.image_mean, images.image_std))
    return [pixels * std + mean for pixels in encoder_images(adapter, inputs)]


def image_handling(adapter: ModelAdapter, shown: Tensor, images: Sequence[Image.Image]) -> Finding:
    """Check what the encoder sees of the probe.

    Args:
        adapter: Adapter of the model.
        shown: The probe's first encoded image, [3, height, width].
        images: Images of the benchmark, which a cut concerns if they are not square.
    """
    _, height, width = shown.shape
    count = adapter.image_tokens
    facts: dict[str, Any] = {"size": [width, height], "tokens": count}
    low, high = shown.min().item(), shown.max().item()
    facts["range"] = [low, high]
    if low < -SPREAD or high > 1 + SPREAD:
        text = (
            f"colours lie in [{low:.2f}, {high:.2f}], not in [0, 1]: rescale_factor, image_mean or "
            "image_std is not what the pixels need"
        )
        return Finding("images", "wrong", text, facts)
    shares, lost = _borders(shown)
    facts["borders"] = shares
    exchanged = shown.flip(0)
    if lost and not _borders(exchanged)[1] and _moved(exchanged) is None:
        text = "the red and the blue of images are exchanged before they reach the encoder (BGR)"
        return Finding("images", "wrong", text, facts)
    if set(lost) == {"left", "right"}:
        text = (
            "the processor cuts off the left and the right of an image that is wider than high "
            "(do_center_crop), so the model does not see them"
        )
        if all(max(image.size) <= SQUARE * min(image.size) for image in images):
            text += "; the first images of this benchmark are square, so nothing is lost of them"
            return Finding("images", "note", text, facts)
        text += "; inputs=authors pads the image to a square, for models that have such a file"
        return Finding("images", "warning", text, facts)
    if lost:
        text = f"the borders at {', '.join(lost)} of a test image do not reach the encoder"
        return Finding("images", "wrong", text, facts)
    if moved := _moved(shown):
        return Finding("images", "wrong", moved, facts)
    kind = "of any size" if count is None else f"of {count} tokens"
    text = f"the whole image reaches the encoder, at {width} x {height} pixels; images {kind}"
    return Finding("images", "ok", text, facts)


def normalisation(adapter: ModelAdapter, processor: Any) -> list[Finding]:
    """A warning if the processor's mean or deviation is not that of the encoder's kind."""
    kind = adapter.model.config.vision_config.model_type
    known = STATISTICS.get(kind)
    given = processor.image_processor
    if known is None or not given.do_normalize:
        return []
    wrong = [
        f"{name} is {[round(v, 3) for v in getattr(given, name)]}, not "
        f"{[round(v, 3) for v in usual]}"
        for name, usual in zip(("image_mean", "image_std"), known, strict=True)
        if not all(abs(a - b) < 1e-3 for a, b in zip(getattr(given, name), usual, strict=True))
    ]
    if not wrong:
        return []
    text = f"encoders of the kind {kind} are trained with other colours: {'; '.join(wrong)}"
    return [Finding("colours", "warning", text)]


def blank(images: Sequence[Image.Image]) -> list[Finding]:
    """A finding if every one of the benchmark's first images has a single colour."""
    # getcolors returns None where an image has more colours than its argument
    if not images or any(image.convert("RGB").getcolors(1) is None for image in images):
        return []
    text = (
        f"the first {len(images)} images of the benchmark have a single colour each: its images "
        "are lost, or stand-ins"
    )
    return [Finding("blank", "wrong", text)]


def save_picture(folder: Path, name: str, original: Image.Image, shown: list[Tensor]) -> Path:
    """Write a picture: the original, then up to six images as the encoder sees them."""
    parts = [original.convert("RGB"), *(_image(pixels) for pixels in shown[:6])]
    height = max(part.height for part in parts)
    sheet = Image.new("RGB", (sum(part.width + 8 for part in parts) - 8, height), "white")
    left = 0
    for part in parts:
        sheet.paste(part, (left, 0))
        left += part.width + 8
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / name)
    return folder / name


def _mask(shown: Tensor, side: str) -> Tensor:
    color = torch.tensor(SIDES[side]).view(3, 1, 1) / 255
    return ((shown - color).abs() < NEAR).all(0)


def _borders(shown: Tensor) -> tuple[dict[str, float], list[str]]:
    """Share of each border that is seen, and the borders that are lost."""
    shares = {side: _share(shown, side) for side in SIDES}
    return shares, [side for side, share in shares.items() if share < LEAST]


def _share(shown: Tensor, side: str) -> float:
    """Pixels of a border's colour over those that the border has in the whole image."""
    _, height, width = shown.shape
    scale = min(width / SIZE[0], height / SIZE[1])
    along = SIZE[0] if side in ("top", "bottom") else SIZE[1] - 2 * BORDER
    return float(_mask(shown, side).sum() / (BORDER * along * scale**2))


def _moved(shown: Tensor) -> str | None:
    """A sentence if borders are not at their sides: mirrored or turned."""
    _, height, width = shown.shape
    rows, columns = torch.arange(height) / height, torch.arange(width) / width
    for side in SIDES:
        mask = _mask(shown, side).float()
        across = (mask.sum(0) * columns).sum() / mask.sum()
        down = (mask.sum(1) * rows).sum() / mask.sum()
        distance = {"left": across, "right": 1 - across, "top": down, "bottom": 1 - down}[side]
        if distance > 0.4:
            return (
                f"the colour of the {side} border is elsewhere in the image that the encoder sees: "
                "the image is mirrored or turned"
            )
    return None


def _image(pixels: Tensor) -> Image.Image:
    values = (pixels.clamp(0, 1) * 255).round().byte()
    return Image.fromarray(rearrange(values, "c h w -> h w c").numpy())
