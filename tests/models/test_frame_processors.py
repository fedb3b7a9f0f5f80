"""Videos through real processors: pixels of each frame, slots, times; and the proof behind them."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from family_droppers import FITTING
from hub_checkpoints import CLIP_IMAGES, save
from models import greedy
from PIL import Image
from transformers import AutoModelForImageTextToText

from mustdrop.evaluation.chat import read_chat
from mustdrop.evaluation.frame_cache import VideoReader
from mustdrop.evaluation.model_inputs import prompt_inputs
from mustdrop.evaluation.videos import VideoFrames
from mustdrop.masked import masked_logits, relative_error
from mustdrop.models import adapter_for
from mustdrop.models.frame_processors import Qwen3Frames, QwenFrames, video_settings
from mustdrop.models.inputs import Inputs, load_processor
from mustdrop.models.processor import require_fit

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "video_llava")
FRAMES = 4
# Vision tokens of a video of 4 frames of 40 x 32 pixels. Video-LLaVA: 6 x 6 patches and a [CLS] per
# frame. Qwen: 5 x 4 cells of 8 x 8 pixels in each of two steps of time.
SLOTS = {"video_llava": FRAMES * 37, "qwen2_5_vl": 2 * 20, "qwen3_vl": 2 * 20}


class Clips(VideoReader):
    """Reads no file: a path names the seed of random frames."""

    def read(self, path):
        drawn = np.random.default_rng(int(path.stem)).integers(
            0, 256, (self.count, 32, 40, 3), dtype=np.uint8
        )
        frames = [Image.fromarray(values) for values in drawn]
        seconds = [0.5 * index for index in range(self.count)]
        return VideoFrames(frames, seconds, 10.0, 5 * self.count)


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request, tmp_path_factory):
    folder = save(request.param, tmp_path_factory.mktemp(request.param))
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = load_processor(folder, model.config)
    Inputs(frames=FRAMES).apply(processor)
    return request.param, model, processor


def chat(*content):
    parts = [
        {"type": "text", "text": part} if part.endswith("?")
        else {"type": "video", "url": part} if part.endswith(".mp4")
        else {"type": "image", "url": picture(int(part))}
        for part in content
    ]  # fmt: skip
    return read_chat("t", 0, [{"role": "user", "content": parts}], Clips(FRAMES))


def picture(seed):
    values = np.random.default_rng(seed).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    return Image.fromarray(values)


def slots(model, inputs):
    return (inputs["input_ids"] == model.config.video_token_id).sum(1).tolist()


CHATS = (
    chat("1.mp4", "What?"), chat("2", "Which?"), chat("3.mp4", "4", "Who?"), chat("Nothing?"),
    chat("5.mp4", "6.mp4", "When?"),
)  # fmt: skip


def test_a_processor_fits_its_model(loaded):
    _, model, processor = loaded
    require_fit(adapter_for(model), processor)


def test_every_prompt_has_its_own_videos_in_a_batch(loaded):
    family, model, processor = loaded
    together = prompt_inputs(model, processor, CHATS)
    alone = [prompt_inputs(model, processor, [entry]) for entry in CHATS]
    count = SLOTS[family]
    assert slots(model, together) == [count, 0, count, 0, 2 * count]
    for row, mask, inputs in zip(
        together["input_ids"], together["attention_mask"], alone, strict=True
    ):
        assert torch.equal(row[mask.bool()], inputs["input_ids"][0])
    name = "pixel_values_videos"
    assert torch.equal(
        together[name], torch.cat([inputs[name] for inputs in alone if name in inputs])
    )
    assert name not in alone[1] and name not in alone[3]


@pytest.mark.parametrize("name", ["all_stages", "fastv", "divprune", "tome"])
def test_dropping_equals_masking_behind_a_real_processor(loaded, name):
    _, model, processor = loaded
    inputs = prompt_inputs(model, processor, CHATS)
    with FITTING[name].attach(model) as run:
        tokens, logits = greedy(model, inputs, steps=4)
    assert run.ledgers[0].counts().resident < int(run.ledgers[0].vision.sum())
    assert [len(ledger.videos) for ledger in run.ledgers] == [1, 0, 1, 0, 2]
    for number in range(len(CHATS)):
        expected = masked_logits(model, run, inputs, tokens, number)
        assert relative_error(logits[number], expected) <= 1e-5


def test_frames_of_video_llava_are_the_images_that_its_image_processor_makes(tmp_path):
    folder = save("video_llava", tmp_path)
    config = AutoModelForImageTextToText.from_pretrained(folder).config
    processor = load_processor(folder, config)
    frames = Clips(3).read(tmp_path / "1").frames
    arrays = np.stack([np.asarray(frame) for frame in frames])
    (made,) = processor.video_processor([arrays])["pixel_values_videos"]
    images = processor.image_processor(frames, return_tensors="pt")["pixel_values_images"]
    assert torch.equal(made, images)


def test_two_frames_of_qwen_lie_in_each_patch(tmp_path):
    """A patch holds 3 colours x 2 frames x 4 x 4 pixels; these frames are not resized."""
    processor = QwenFrames({"patch_size": 4, "min_pixels": 1, "max_pixels": 10**6})
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3), dtype=np.uint8)
    made = processor([frames])
    assert made["video_grid_thw"].tolist() == [[2, 2, 4]]
    patches = made["pixel_values_videos"].view(
        2, 2, 2, 2, 3, 2, 4, 4
    )  # t, column, a, b, c, t, p, q
    mean, std = (np.array(CLIP_IMAGES[name]) for name in ("image_mean", "image_std"))
    normal = torch.from_numpy((frames / 255 - mean) / std).permute(0, 3, 1, 2).float()
    # the second cell of the first step: columns 8 to 15, in patches of 4 x 4
    for row in range(2):
        for column in range(2):
            for time in range(2):
                area = normal[time, :, 4 * row : 4 * row + 4, 8 + 4 * column : 12 + 4 * column]
                assert torch.allclose(patches[0, 1, row, column, :, time], area, atol=1e-5)
    last = patches[1]  # the third frame, and again the third one
    assert torch.equal(last[..., 0, :, :], last[..., 1, :, :])


def test_times_reach_the_positions_of_qwen(tmp_path):
    """A frame every 0.5 seconds, two in a step: a step of time lasts one second."""
    folder = save("qwen2_5_vl", tmp_path)
    config = AutoModelForImageTextToText.from_pretrained(folder).config
    processor = load_processor(folder, config)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    inputs = prompt_inputs(model, processor, CHATS[:1])
    assert torch.as_tensor(inputs["second_per_grid_ts"]).tolist() == pytest.approx([1.0])


def test_times_reach_the_prompt_of_qwen3(tmp_path):
    """A step of two frames stands behind the mean of their times."""
    folder = save("qwen3_vl", tmp_path)
    config = AutoModelForImageTextToText.from_pretrained(folder).config
    processor = load_processor(folder, config)
    (video,) = [Clips(4).read(tmp_path / "1")]
    array = np.stack([np.asarray(frame) for frame in video.frames])
    inputs = processor(
        text=["<|video_pad|>"], videos=[array], do_sample_frames=False, return_tensors="pt",
        video_metadata=[{"total_num_frames": 20, "fps": 10.0, "frames_indices": [0, 5, 10, 15]}],
    )  # fmt: skip
    step = "<|vision_start|>" + 20 * "<|video_pad|>" + "<|vision_end|>"
    prompt = processor.tokenizer.decode(inputs["input_ids"][0])
    assert prompt == f"<0.2 seconds>{step}<1.2 seconds>{step}"


def test_the_limits_of_a_video_of_qwen3_hold_for_all_frames_together():
    settings = {"patch_size": 4, "size": {"shortest_edge": 64, "longest_edge": 4 * 16 * 24}}
    processor = Qwen3Frames(settings)
    video = np.zeros((4, 64, 96, 3), np.uint8)
    assert processor([video])["video_grid_thw"].tolist() == [[2, 4, 6]]
    assert processor([video[:2]])["video_grid_thw"].tolist() == [[1, 4, 8]]  # 2 x 21 x 32 pixels
    Inputs(max_pixels=16 * 16, frames=4).apply(
        SimpleNamespace(image_processor=processor.images, video_processor=processor)
    )
    assert processor([video])["video_grid_thw"].tolist() == [[2, 2, 4]]  # 4 x 13 x 19 pixels


def test_limits_on_pixels_hold_for_frames_too(tmp_path):
    folder = save("qwen2_5_vl", tmp_path)
    processor = load_processor(folder, AutoModelForImageTextToText.from_pretrained(folder).config)
    Inputs(max_pixels=512, frames=2).apply(processor)
    (video,) = [np.zeros((2, 64, 64, 3), np.uint8)]
    made = processor.video_processor([video])
    assert made["video_grid_thw"].tolist() == [[1, 4, 4]]  # 16 x 16 pixels, at most 512


def test_settings_come_from_the_file_that_transformers_would_read(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"size": 1}')
    assert video_settings(tmp_path) == {"size": 1}
    (tmp_path / "video_preprocessor_config.json").write_text('{"size": 2}')
    assert video_settings(tmp_path) == {"size": 2}
    (tmp_path / "processor_config.json").write_text('{"patch_size": 4}')
    assert video_settings(tmp_path) == {"size": 2}
    (tmp_path / "processor_config.json").write_text('{"video_processor": {"size": 3}}')
    assert video_settings(tmp_path) == {"size": 3}
    with pytest.raises(OSError, match="has no video_preprocessor_config"):
        video_settings(tmp_path / "nowhere")


def test_a_model_that_reads_no_videos_refuses_them(tmp_path):
    folder = save("llava", tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = load_processor(folder, model.config)
    with pytest.raises(ValueError, match=r"^prompt 0: LlavaProcessor reads no videos"):
        prompt_inputs(model, processor, CHATS[:1])
    with pytest.raises(ValueError, match=r"model\.frames must be null: LlavaProcessor reads no"):
        Inputs(frames=8).apply(processor)
    content = [{"type": "video", "url": "1.mp4"}]
    with pytest.raises(ValueError, match=r"^document 3 of t: a video needs model\.frames"):
        read_chat("t", 3, [{"role": "user", "content": content}], VideoReader.of(processor))


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="needs torchvision")
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_own_video_processors_make_about_the_same_pixels(family, tmp_path):
    """They resize with torchvision: some values differ by a few of 255 levels."""
    from transformers import AutoVideoProcessor

    folder = save(family, tmp_path)
    config = AutoModelForImageTextToText.from_pretrained(folder).config
    ours, theirs = load_processor(folder, config).video_processor, AutoVideoProcessor
    theirs = theirs.from_pretrained(folder)
    x, y = np.meshgrid(np.linspace(0, 255, 70), np.linspace(0, 255, 50))
    frames = np.stack([np.stack([x, y, 255 - x * step / 8], 2) for step in range(5)])
    videos = [frames.astype(np.uint8), frames[::-1, :, ::-1].astype(np.uint8)]
    one, other = ours(videos), theirs(videos, return_tensors="pt")
    assert one.keys() == other.keys()
    for name in one:
        difference = (one[name].double() - torch.as_tensor(other[name]).double()).abs()
        assert difference.max() <= 4 / 255 / min(CLIP_IMAGES["image_std"])
