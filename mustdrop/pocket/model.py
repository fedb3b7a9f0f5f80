"""PocketLLaVA: a LLaVA of a million parameters, its processor and its trained weights.

It has 576 vision tokens from 192 x 192 pixels and a vocabulary of 70 words. It uses only standard
Hugging Face classes, so that code that works on it works on LLaVA-1.5. Knows nothing about scenes
except their size and their words.
"""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from mustdrop.pocket.questions import WORDS
from mustdrop.pocket.scenes import GRID, IMAGE_SIZE, PATCH_SIZE

FEATURE_LAYER = -2  # the features are read before the encoder's last block, as in LLaVA-1.5
CHECKPOINT = Path(__file__).parent / "checkpoint"
PAD, BOS, EOS, UNKNOWN, IMAGE = range(5)
VOCABULARY = (
    *("<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:"),
    *sorted(WORDS),
)
TOKEN_IDS = {word: index for index, word in enumerate(VOCABULARY)}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}"
    "{% else %}ASSISTANT: {{ message['content'][0]['text'] }}</s>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def config(
    vision_hidden: int = 96,
    blocks: int = 4,
    hidden: int = 96,
    layers: int = 12,
    head_size: int = 32,
) -> LlavaConfig:
    """Create the architecture; the defaults are those of the packaged checkpoint.

    Args:
        vision_hidden: Width of the encoder.
        blocks: Number of encoder blocks, 2 or more, as features are read before the last one.
        hidden: Width of the language model.
        layers: Number of decoder layers.
        head_size: Width of one attention head of the encoder and of the language model.

    Raises:
        ValueError: If a width is no multiple of the head size, or a count is too small.
    """
    if head_size < 4 or head_size % 4:
        raise ValueError(f"head_size must be a positive multiple of 4, got {head_size}")
    for name, width in (("vision_hidden", vision_hidden), ("hidden", hidden)):
        if width < head_size or width % head_size:
            raise ValueError(f"{name} must be a multiple of head_size {head_size}, got {width}")
    if blocks < 2 or layers < 1:
        raise ValueError(f"blocks must be >= 2 and layers >= 1, got {blocks} and {layers}")
    vision = CLIPVisionConfig(
        hidden_size=vision_hidden,
        intermediate_size=3 * vision_hidden,
        num_hidden_layers=blocks,
        num_attention_heads=vision_hidden // head_size,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        hidden_act="gelu_pytorch_tanh",
        projection_dim=vision_hidden,
    )
    text = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=hidden,
        intermediate_size=5 * hidden // 2,
        num_hidden_layers=layers,
        num_attention_heads=hidden // head_size,
        num_key_value_heads=hidden // head_size,
        max_position_embeddings=1024,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        tie_word_embeddings=False,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=GRID**2,
        vision_feature_layer=FEATURE_LAYER,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
    )


def build_processor() -> LlavaProcessor:
    """Create the processor: one token per word, 576 slots per image, padding on the left.

    It reads images with PIL, so it does not need torchvision.
    """
    words = Tokenizer(models.WordLevel(TOKEN_IDS, unk_token=VOCABULARY[UNKNOWN]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[(VOCABULARY[BOS], BOS)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=VOCABULARY[PAD],
        bos_token=VOCABULARY[BOS],
        eos_token=VOCABULARY[EOS],
        unk_token=VOCABULARY[UNKNOWN],
        extra_special_tokens={"image_token": VOCABULARY[IMAGE]},
        padding_side="left",
    )
    return processor_of(tokenizer, CHAT_TEMPLATE)


def processor_of(tokenizer: PreTrainedTokenizerFast, chat_template: str) -> LlavaProcessor:
    """Create a processor of PocketLLaVA's images with a tokenizer and a chat template."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE},
            crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=chat_template,
        num_additional_image_tokens=1,
    )


def build_model(
    architecture: LlavaConfig | None = None, seed: int = 0
) -> LlavaForConditionalGeneration:
    """Create an untrained model in float32.

    Weights are normal with deviation 0.8 / sqrt(inputs), less in the matrices that write to the
    residual stream. Patch positions start as sines and cosines of row and column, because learning
    from data that the image has two dimensions would take hours.
    """
    model = LlavaForConditionalGeneration(architecture or config())
    draws = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "position_embedding" in name:
            nn.init.zeros_(parameter)
            parameter.data[1:] = _sines(parameter.shape[1])
        elif deviation := _deviation(name, parameter):
            nn.init.normal_(parameter, std=deviation, generator=draws)
    model.generation_config.update(do_sample=False, max_new_tokens=4)
    return model.eval()


def _deviation(name: str, parameter: Tensor) -> float | None:
    """Standard deviation of the initial weights; None leaves norms and biases unchanged."""
    if "class_embedding" in name:
        return 0.3
    if "embed_tokens" in name:
        return 0.5
    if parameter.dim() < 2:
        return None
    deviation = 0.8 / math.sqrt(parameter[0].numel())
    if "lm_head" in name:
        return 0.3 * deviation
    to_residual = any(part in name for part in ("out_proj", "fc2", "o_proj", "down_proj"))
    return 0.4 * deviation if to_residual else deviation


def _sines(width: int) -> Float[Tensor, "patches {width}"]:
    """Sine and cosine of column and row, each at width / 4 frequencies, over the 24 x 24 grid."""
    frequencies = 60.0 ** -(torch.arange(width // 4) / (width // 4))
    row, column = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (column, row)]
    return 0.5 * torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], 1)


def load(
    dtype: torch.dtype = torch.float32,
    attn_implementation: str = "sdpa",
    folder: Path = CHECKPOINT,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Load the trained model and its processor, offline and in about a second.

    Args:
        dtype: Data type of the weights in memory; they are stored in bfloat16.
        attn_implementation: Attention implementation by its Hugging Face name: "sdpa", "eager",
            "flash_attention_2".
        folder: Folder written by ``Training.export``, or the packaged one.

    Raises:
        FileNotFoundError: If the folder lacks a file.
    """
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}: reinstall mustdrop to get the packaged weights,"
            " or train and export a model with experiments/train_pocket.py"
        )
    model = LlavaForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, attn_implementation=attn_implementation, local_files_only=True
    )
    processor = LlavaProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    return model.eval(), processor
