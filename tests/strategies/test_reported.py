"""Faults that users reported of other repositories of this field; each issue is named."""

import subprocess
import sys

import pytest
from lmms_eval.tasks.scienceqa.utils import sqa_process_results
from models import prompt, tiny_llava
from small_traces import write_traced

from mustdrop import TokenDropper
from mustdrop.evaluation.tasks.mmbench import score as mmbench_score
from mustdrop.evaluation.tasks.mme import score as mme_score
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.pyramiddrop import PyramidDrop


@pytest.fixture(scope="module")
def deep():
    """576 vision tokens and 32 layers, as LLaVA-1.5 has them."""
    return tiny_llava(layers=32, grid=24)


def counts_and_cache(model, strategy):
    inputs = prompt(model)
    with TokenDropper(prefill=strategy).attach(model) as run:
        out = model.generate(
            **inputs,
            max_new_tokens=3,
            do_sample=False,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
    text = inputs["input_ids"].shape[1] - 576 + 2  # two new tokens enter the cache
    lengths = [layer.get_seq_length() - text for layer in out.past_key_values.layers]
    return run.ledgers[0].counts(), lengths


def test_fastv_counts_tokens_at_the_input_of_a_layer(deep):
    """Gumpest/SparseVLMs#12 and #35: 171 = (2 * 576 + 30 * 144) / 32, by inputs of layers."""
    counts, cached = counts_and_cache(deep, FastV(keep=144, layer=1))
    assert (counts.executed_average, counts.paper_average) == (171.0, 157.5)
    assert cached == [576] * 2 + [144] * 30  # pkunlp-icler/FastV#18: no layer's cache twice as long


def test_fastv_may_cut_after_the_first_layer(deep):
    """pkunlp-icler/FastV#18: K = 1 ends in an error there."""
    _, cached = counts_and_cache(deep, FastV(keep=288, layer=0))
    assert cached == [576] + [288] * 31


def test_pyramiddrop_counts_as_its_paper_prints(deep):
    """Gumpest/SparseVLMs#35, FiCoCo#4: 8 layers each of 576, 288, 144 and 72 are 270 on average."""
    counts, _ = counts_and_cache(deep, PyramidDrop(ratios=[0.5, 0.25, 0.125], layers=[7, 15, 23]))
    assert counts.executed_average == 270.0


@pytest.mark.parametrize(
    ("answer", "right"),
    [("A", 1), ("a", 1), ("A.", 1), ("A. x", 1), ("B.", 0), ("(A)", 0), ("", 0)],
)
def test_scienceqa_reads_a_letter_as_llavas_script_does(answer, right):
    """EvolvingLMMs-Lab/lmms-eval#427: `A.` counted as wrong."""
    doc = {"choices": ["x", "y"], "answer": 0, "question": "", "hint": ""}
    assert sqa_process_results(doc, [answer])["exact_match"] == right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("A", 1), ("A.", 1), ("(A)", 1), ("red", 1), ("B", 0),
        ("", 0), ("nan", 0), ("E", 0), ("I cannot see it", 0),
    ],
)  # fmt: skip
def test_mmbench_never_guesses(answer, right):
    """MMMU-Benchmark/MMMU#72: a letter is drawn at random where none is read."""
    doc = {
        "index": 3, "question": "Which?", "hint": "nan", "answer": "A",
        "A": "red", "B": "blue", "C": "nan", "D": "nan",
        "category": "c", "L2-category": "l", "source": "s", "comment": "nan", "split": "dev",
    }  # fmt: skip
    scores = {mmbench_score(doc, [answer])["mmbench_accuracy"] for _ in range(20)}
    assert scores == {float(right)}


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("Yes, the stone bears a death notice", "Yes", 1),
        ("No.", "No", 1),
        ("", "No", 0),
        ("perhaps", "Yes", 0),
    ],
)
def test_mme_reads_the_beginning_of_an_answer(answer, target, right):
    """open-compass/VLMEvalKit#73: the `no` in `notice` was read as an answer."""
    doc = {"question_id": "a", "category": "count", "answer": target}
    assert mme_score(doc, [answer])["mme_accuracy"] == right


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.nowhere", "TkAgg"])
def test_figures_are_written_whatever_backend_the_shell_names(backend, tmp_path, monkeypatch):
    """deepTools#1416, kohya_ss#2521: MPLBACKEND of a notebook stops a script; #6739: no display."""
    write_traced(tmp_path / "runs")
    monkeypatch.setenv("MPLBACKEND", backend)
    monkeypatch.delenv("DISPLAY", raising=False)
    paths = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "figures")]
    subprocess.run([sys.executable, "-m", "analysis.figures", "layers", *paths], check=True)
    assert list((tmp_path / "figures").glob("*.png"))
