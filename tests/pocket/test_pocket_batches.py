"""What training feeds on: packed questions get their own logits, and labels are the scene's."""

import pytest
import torch

from mustdrop.pocket import build_model, config, load, prompt, scene
from mustdrop.pocket.model import BOS, TOKEN_IDS, VOCABULARY
from mustdrop.pocket.questions import QUESTION_TYPES
from mustdrop.pocket.training.batches import Batches
from mustdrop.pocket.training.packing import answers, decode, encode, normalise
from mustdrop.pocket.training.team import Team

EVEN = dict.fromkeys(QUESTION_TYPES, 1.0)


SHAPES = ("circle", "square", "triangle", "diamond", "cross", "bus")


def is_two_hop(text):
    return {"left", "right", "above", "below"} & set(text) and text[0] == "what"


def batches(**changes):
    values = {"seed": 9, "stage": 1, "steps": 5, "images": 2, "questions": 6}
    values |= {"objects": (3, 8), "tokens": (576,), "compact": 0.0, "question_weights": EVEN}
    return Batches(**(values | changes))


# The packed forward


def test_a_packed_question_gets_the_logits_it_gets_alone():
    """The other side is the processor's own prompt and the model's own forward, one at a time."""
    model, processor = load()
    batch = batches()[0]
    with torch.no_grad():
        packed = answers(model, batch.pixels, batch.kept, batch.questions, batch.ends)
        for image, pixels in enumerate(batch.pixels):
            for row, words in enumerate(batch.questions[image]):
                end = int(batch.ends[image, row])
                text = prompt(processor, " ".join(VOCABULARY[word] for word in words[:end]))
                inputs = processor(images=pixels.numpy(), text=text, return_tensors="pt")
                alone = model(**inputs).logits[0, -1]
                assert (packed[image, row] - alone).abs().max() < 1e-5 * alone.abs().max()
    assert (packed[0, 0] - packed[0, 1]).abs().max() > 1, "questions that all look alike"


def test_tokens_left_out_change_what_is_seen_but_no_position():
    model = build_model(seed=3)
    batch = batches()[0]
    with torch.no_grad():
        images = normalise(batch.pixels)
        whole = model.model.vision_tower.embeddings(images)
        few = encode(model, images, batch.kept[:, 7:300:2])
        one = model.model.vision_tower.pre_layrnorm(whole[:, [0, *range(8, 301, 2)]])
        for block in model.model.vision_tower.encoder.layers:
            one = block(one, attention_mask=None)
        assert torch.allclose(few[-1], one, atol=1e-6)
        full, part = (
            answers(model, batch.pixels, kept, batch.questions, batch.ends)
            for kept in (batch.kept, batch.kept[:, 7:300:2])
        )
    assert (full - part).abs().max() > 1e-3


def test_tokens_counted_anew_are_a_shorter_image():
    """The other side is the stock language model, which counts what it is given."""
    model, batch = build_model(config(layers=3), seed=3), batches(tokens=(50,), compact=1.0)[0]
    assert batch.slots.tolist() == [list(range(50))] * 2 and batch.length.tolist() == [50, 50]
    language = model.model.language_model
    with torch.no_grad():
        features = encode(model, normalise(batch.pixels), batch.kept)[-2][:, 1:]
        packed = decode(model, features, batch.slots, batch.length, batch.questions)[-1]
        prompt = torch.cat([torch.tensor([[BOS, TOKEN_IDS["USER:"]]]), batch.questions[0, 3:4]], 1)
        words = language.embed_tokens(prompt)
        image = model.model.multi_modal_projector(features[:1])
        alone = language(inputs_embeds=torch.cat([words[:, :2], image, words[:, 2:]], 1))
        found = language.norm(packed[0, 3])
        assert torch.allclose(found, alone.last_hidden_state[0, 52:], atol=1e-5)
        kept = decode(model, features, batch.kept, torch.full((2,), 576), batch.questions)[-1]
    assert (kept - packed).abs().max() > 1e-3
    drawn = [batches(tokens=(50,), compact=0.4, steps=40)[step].length[0] for step in range(40)]
    assert set(map(int, drawn)) == {50, 576} and 8 <= drawn.count(50) <= 24


def test_a_closed_layer_hides_the_image_from_the_questions_alone():
    model, batch = build_model(config(layers=3), seed=3), batches()[0]
    with torch.no_grad():
        features = encode(model, normalise(batch.pixels), batch.kept)[-2][:, 1:]

        def states(features, closed):
            asked = batch.slots, batch.length, batch.questions
            return decode(model, features, *asked, closed)

        dark, dark_other = (states(f, (0, 1, 2)) for f in (features, features.flip(0)))
        assert torch.equal(dark[-1], dark_other[-1])
        late, open_ = states(features, (0, 1)), states(features, ())
        assert torch.equal(late[1], dark[1]) and not torch.equal(late[2], dark[2])
        # the image itself is read as ever: what the last layer sees of it has been through all
        shuffled = states(features.flip(0), (0, 1))
        assert not torch.allclose(late[2], shuffled[2]) and not torch.allclose(late[2], open_[2])


# The batches


def test_a_batch_is_a_function_of_seed_stage_and_step():
    first, again = batches(tokens=(64, 96))[3], batches(tokens=(64, 96), steps=9)[3]
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(again, name)), name
    for changed in ({"seed": 10}, {"stage": 2}):
        assert not torch.equal(batches(tokens=(64, 96), **changed)[3].pixels, first.pixels)
    drawn = {batches(tokens=(64, 96), steps=20)[step].kept.shape[1] for step in range(20)}
    assert drawn == {64, 96}


def test_a_team_shares_the_images_of_a_step():
    whole = batches(images=4)[2]
    shares = [batches(images=4, team=Team(rank, 2))[2] for rank in range(2)]
    for name, value in vars(whole).items():
        for rank, share in enumerate(shares):
            assert torch.equal(getattr(share, name), value[rank::2]), name
    with pytest.raises(ValueError, match="number of processes, 3, got 4"):
        batches(images=4, team=Team(0, 3))


def test_labels_say_what_the_scene_holds():
    batch = batches(tokens=(96,), stage=0)[2]
    colors = ["none", "red", "green", "blue", "yellow", "purple", "orange", "cyan"]
    for image in range(2):
        drawn = scene(9, 2 * 2 + image, 3, 8)
        assert torch.equal(batch.pixels[image], torch.from_numpy(drawn.pixels))
        kept = batch.kept[image]
        assert kept.tolist() == sorted(set(kept.tolist())) and len(kept) == 96
        owner = torch.from_numpy(drawn.patch_owner).flatten()
        assert set((owner >= 0).nonzero().flatten().tolist()) <= set(kept.tolist())
        for place, patch in enumerate(kept.tolist()):
            color, _, character = batch.patch_labels[image, place].tolist()
            index = int(owner[patch])
            item = drawn.objects[index] if index >= 0 else None
            assert colors[color] == (item.color if item else "none")
            assert (character > 0) == bool(item and item.character)
        assert int(batch.census[image, :42].sum()) == len(drawn.objects)
        assert int(batch.census[image, 42:].sum()) == len(
            {item.character for item in drawn.objects} - {None}
        )


def test_nouns_are_grounded_in_the_objects_they_name():
    grounded, meant = 0, 0
    for batch in (batches(questions=12)[step] for step in range(4)):
        for words, end, mentions, centers, weights in zip(
            *(
                value.flatten(0, 1)
                for value in (
                    batch.questions,
                    batch.ends,
                    batch.mentions,
                    batch.mention_centers,
                    batch.mention_weights,
                )
            ),
            strict=True,
        ):
            text = [VOCABULARY[word] for word in words]
            assert text[end] == "ASSISTANT:"
            for place in weights.nonzero().flatten().tolist():
                noun = text[int(mentions[place])]
                assert noun in ("object", *SHAPES) or (noun == "?" and is_two_hop(text))
                assert centers[place].abs().max() < 1
                grounded += 1
                meant += noun == "?"
    assert grounded > 40 and meant > 2
