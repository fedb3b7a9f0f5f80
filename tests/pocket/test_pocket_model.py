"""PocketLLaVA: stock classes, offline, and weights that answer because they look."""

import shutil

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from mustdrop.pocket import (
    CHECKPOINT,
    answer,
    build_model,
    build_processor,
    config,
    exact_match,
    load,
    prompt,
    sample,
)
from mustdrop.pocket.evaluation import Score
from mustdrop.pocket.questions import WORDS


@pytest.fixture(scope="module")
def pocket():
    return load()


@pytest.fixture(scope="module")
def samples():
    return [sample("easy_test", index) for index in range(64)]


def test_the_packaged_weights_answer_easy_questions_and_only_by_looking(pocket, samples):
    """Plain ``generate`` of the stock class, in ragged batches; then the same on wrong images."""
    model, processor = pocket
    assert type(model) is LlavaForConditionalGeneration

    def right(images):
        answers = []
        for start in range(0, 64, 16):
            texts = [
                f"USER: <image> {one.question} ASSISTANT:" for one in samples[start : start + 16]
            ]
            inputs = processor(
                images=images[start : start + 16], text=texts, padding=True, return_tensors="pt"
            )
            tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
            fresh = tokens[:, inputs["input_ids"].shape[1] :]
            answers += processor.batch_decode(fresh, skip_special_tokens=True)
        return sum(given == one.answer for given, one in zip(answers, samples, strict=True))

    images = [one.image for one in samples]
    assert right(images) >= 0.9 * 64
    assert right(images[1:] + images[:1]) <= 0.5 * 64


def test_answers_do_not_depend_on_the_batch(pocket, samples):
    together, alone = (answer(*pocket, samples[:9], batch_size=size) for size in (9, 2))
    assert together == alone
    assert exact_match(together, samples[:9]).n == 9
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        answer(*pocket, samples[:1], batch_size=0)


def test_the_packaged_files_are_what_the_code_builds(pocket, samples):
    """The processor in code, the packaged one, and what a stranger's AutoProcessor finds."""
    model, packaged = pocket
    for processor in (build_processor(), AutoProcessor.from_pretrained(CHECKPOINT, backend="pil")):
        assert processor.tokenizer.get_vocab() == packaged.tokenizer.get_vocab()
        text = prompt(processor, samples[0].question)
        assert text == prompt(packaged, samples[0].question)
        ours, theirs = (
            p(images=samples[0].image, text=text, return_tensors="pt")
            for p in (processor, packaged)
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for part in ("text_config", "vision_config"):
        expected, found = getattr(config(), part).to_dict(), getattr(model.config, part).to_dict()
        assert {k: v for k, v in found.items() if k != "dtype"} == {
            k: v for k, v in expected.items() if k != "dtype"
        }


def test_a_prompt_is_one_chat_turn_with_576_slots_padded_on_the_left():
    processor = build_processor()
    texts = [prompt(processor, "is there a red bus ?"), prompt(processor, "how many buses ?")]
    assert texts[1] == "USER: <image> how many buses ? ASSISTANT:"
    inputs = processor(
        images=[sample("easy_test", 0).image] * 2, text=texts, padding=True, return_tensors="pt"
    )
    ids = inputs["input_ids"]
    assert (ids == processor.image_token_id).sum(1).tolist() == [576, 576]
    assert inputs["attention_mask"].sum(1).tolist() == [2 + 576 + 7, 2 + 576 + 5]
    assert (ids[:, -1] == processor.tokenizer.get_vocab()["ASSISTANT:"]).all()
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "how many ?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "2"}]},
    ]
    assert processor.apply_chat_template(turns) == "USER: <image> how many ? ASSISTANT: 2</s>"


def test_every_word_has_a_token():
    processor = build_processor()
    ids = processor.tokenizer(" ".join(sorted(WORDS)), add_special_tokens=False)["input_ids"]
    assert len(set(ids)) == len(WORDS)
    assert processor.tokenizer.unk_token_id not in ids
    assert len(processor.tokenizer) == 70


def test_a_missing_file_is_named(tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINT, folder)
    load(folder=folder)
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks model.safetensors, tokenizer.json: rein"):
        load(folder=folder)


def test_the_packaged_weights_are_small():
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) < 8_000_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden": 100}, "hidden must be a multiple of head_size 32, got 100"),
        ({"vision_hidden": 16}, "vision_hidden must be a multiple of head_size 32, got 16"),
        ({"head_size": 6}, "head_size must be a positive multiple of 4, got 6"),
        ({"blocks": 1}, "blocks must be >= 2 and layers >= 1, got 1 and 12"),
        ({"layers": 0}, "blocks must be >= 2 and layers >= 1, got 4 and 0"),
    ],
)
def test_a_wrong_architecture_says_what_was_expected(wrong, message):
    with pytest.raises(ValueError, match=message):
        config(**wrong)


def test_an_untrained_model_depends_on_its_seed_alone():
    architecture = config(vision_hidden=32, blocks=2, hidden=32, layers=2)
    torch.manual_seed(5)
    first = build_model(architecture, seed=1).state_dict()
    torch.manual_seed(6)
    again, other = (build_model(architecture, seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_wilson_is_the_root_of_its_equation():
    """The bounds p solve |share - p| = z sqrt(p (1 - p) / n)."""
    score = Score(right=45, n=50)
    for bound in score.interval():
        assert abs(score.share - bound) == pytest.approx(1.96 * (bound * (1 - bound) / 50) ** 0.5)
    assert Score(0, 10).interval()[0] == 0.0
    assert Score(10, 10).interval()[1] == 1.0
