"""Multiple choice through lmms-eval's own evaluator, on a small generated task."""

from statistics import fmean

import pytest
import torch
from lmms_eval import evaluator
from lmms_eval.api.instance import Instance
from lmms_eval.api.task import ConfigurableTask
from lmms_eval.models.registry_v2 import ModelRegistryV2
from lmms_eval.tasks import TaskManager
from pocket_runs import SPLIT, pocket  # noqa: F401  (fixture)

from mustdrop import TokenDropper
from mustdrop.cli.lmms_eval_model import MustDropScoringVLM
from mustdrop.evaluation import plugin
from mustdrop.evaluation.chat import read_chat
from mustdrop.evaluation.choices import ScoringVLM
from mustdrop.evaluation.likelihood import ChoiceQuestion, answer_tokens
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.tasks.documents import Documents
from mustdrop.masked import masked_logits
from mustdrop.pocket.dataset import sample
from mustdrop.pocket.evaluation import prompt
from mustdrop.prefill.fastv import FastV

FASTV = TokenDropper(prefill=FastV(keep=64, layer=0))
WRONG = {"yes": ["no"], "no": ["yes"], "left": ["right"], "right": ["left"]}
LIMIT = 4


def choices(doc):
    """The right answer among others; it stands first in every other document."""
    wrong = WRONG.get(doc["answer"], ["square", "7", "bus"])
    words = [doc["answer"], *(word for word in wrong if word != doc["answer"])]
    return words if doc["index"] % 2 else words[::-1]


class PocketChoices(ConfigurableTask):
    """PocketVQA's questions with their answers to choose from."""

    def __init__(self, output_type="multiple_choice"):
        metrics = ["acc"] if output_type == "loglikelihood" else ["acc", "exact_match"]
        super().__init__(
            config={
                "task": "pocket_choices",
                "test_split": SPLIT,
                "output_type": output_type,
                "doc_to_visual": lambda doc: [doc["image"]],
                "doc_to_text": lambda doc: doc["question"],
                "doc_to_choice": choices if output_type == "multiple_choice" else None,
                "doc_to_target": lambda doc: (
                    choices(doc).index(doc["answer"])
                    if output_type == "multiple_choice"
                    else f" {doc['answer']}"
                ),
                # lmms-eval 0.7.3 unpacks the list of results as if it were its only element.
                "process_results": (
                    (lambda doc, results: {"acc": float(results[0][1])})
                    if output_type == "loglikelihood"
                    else None
                ),
                "metric_list": [
                    {"metric": name, "aggregation": "mean", "higher_is_better": True}
                    for name in metrics
                ],
                "metadata": {"version": 1.0},
            }
        )

    def download(self, dataset_kwargs=None):
        self.dataset = {SPLIT: Documents(sample, SPLIT, 50)}
        self.dataset_no_image = {SPLIT: Documents(sample, SPLIT, 50, False)}


def evaluated(adapter, task, limit=LIMIT):
    return evaluator.simple_evaluate(
        model=adapter, tasks=[task], limit=limit, bootstrap_iters=0, process_docs_parallel=1,
        task_manager=TaskManager("ERROR", include_defaults=False),
    )  # fmt: skip


def plain_losses(pocket, index):
    """Loss of each answer as transformers computes it: one forward, labels on the answer alone."""
    model, processor = pocket
    asked = sample(SPLIT, index)
    doc = {"index": index, "answer": asked.answer}
    text = prompt(processor, asked.question)
    losses = []
    for word in choices(doc):
        whole, alone = (
            processor(images=[asked.image], text=[part], return_tensors="pt")
            for part in (f"{text} {word}", text)
        )
        labels = whole["input_ids"].clone()
        labels[:, : alone["input_ids"].shape[1]] = -100
        with torch.inference_mode():
            losses.append(float(model(**whole, labels=labels).loss))
    return losses


def test_vanilla_losses_are_those_of_transformers(pocket):
    results = evaluated(ScoringVLM(*pocket, batch_size=4), PocketChoices())
    scored = results["samples"]["pocket_choices"]
    right = []
    for logged in scored:
        losses = [response[0] for response in logged["filtered_resps"]]
        expected = plain_losses(pocket, logged["doc_id"])
        assert losses == pytest.approx(expected, abs=1e-4)
        right.append(losses.index(min(losses)) == logged["target"])
    assert results["results"]["pocket_choices"]["acc,none"] == fmean(right) > 0.5


def test_losses_under_a_dropper_are_those_of_the_masked_model(pocket):
    model, processor = pocket
    results = evaluated(ScoringVLM(*pocket, FASTV, batch_size=3), PocketChoices(), 2)
    for logged in results["samples"]["pocket_choices"]:
        counts = logged["token_counts"][0]
        assert counts["vision_tokens"] == [576] + [64] * 11 and counts["output_tokens"] == 1
    logged = results["samples"]["pocket_choices"][1]
    asked = sample(SPLIT, logged["doc_id"])
    text = prompt(processor, asked.question)
    inputs = processor(images=[asked.image], text=[text], return_tensors="pt")
    with FASTV.attach(model) as run:
        model(**inputs)
    words = choices({"index": logged["doc_id"], "answer": asked.answer})
    ids = [processor.tokenizer(f"{text} {word}")["input_ids"][-1] for word in words]
    logprobs = masked_logits(model, run, inputs, torch.tensor([[ids[0]]]))[0].log_softmax(-1)
    losses = [response[0] for response in logged["filtered_resps"]]
    assert losses == pytest.approx([-float(logprobs[token]) for token in ids], abs=1e-4)


def test_output_type_loglikelihood_tells_greedy_answers(pocket):
    """A task object may be given to the adapter of conversations, too."""
    results = evaluated(DroppedVLM(*pocket, batch_size=6), PocketChoices("loglikelihood"))
    found = [logged["filtered_resps"][0] for logged in results["samples"]["pocket_choices"]]
    assert results["results"]["pocket_choices"]["acc,none"] == fmean(greedy for _, greedy in found)
    for index, (loss, _) in enumerate(found[:2]):
        doc = {"index": index, "answer": sample(SPLIT, index).answer}
        assert loss == pytest.approx(plain_losses(pocket, index)[choices(doc).index(doc["answer"])],
                                     abs=1e-4)  # fmt: skip


def test_what_a_scoring_model_refuses(pocket):
    with pytest.raises(ValueError, match="this task generates answers: run it without --force"):
        ScoringVLM(*pocket).generate_until([])
    adapter = DroppedVLM(*pocket)
    adapter.controls = "any"
    with pytest.raises(ValueError, match="controls need generated answers"):
        adapter.loglikelihood([])
    instance = Instance("loglikelihood", ("", "yes"), 0, {"task": "t", "doc_id": 0, "repeats": 1})
    with pytest.raises(ValueError, match="remove the metric acc_mutual_info"):
        DroppedVLM(*pocket).loglikelihood([instance])


def test_an_answer_that_adds_no_token_is_refused(pocket):
    chat = read_chat("t", 0, [{"role": "user", "content": [{"type": "text", "text": "what ?"}]}])
    question = ChoiceQuestion("document 3 of pocket_choices", {}, chat, [" yes", ""])
    with pytest.raises(ValueError, match="document 3 of pocket_choices: the answer '' must add"):
        answer_tokens(pocket[1], question)


def test_the_plugin_has_a_class_for_simple_tasks():
    registry = ModelRegistryV2()
    for manifest in plugin.manifests():
        registry.register_manifest(manifest)
    made = registry.get_model_class(plugin.MODEL, force_simple=True)
    assert made is MustDropScoringVLM and made.is_simple
    assert made.generate_until is ScoringVLM.generate_until
