"""A verdict is read only where there is exactly one; all else is no verdict, never "wrong"."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mustdrop.judging.prompts import PROMPTS
from mustdrop.judging.verdicts import Unjudged, Verdict, read_verdict


@pytest.mark.parametrize(
    ("reply", "correct", "score"),
    [
        ("{'pred': 'yes', 'score': 4.8}", True, 4.8),
        ("{'pred': 'no', 'score': 0}", False, 0.0),
        ('{"pred": "Yes", "score": 5}', True, 5.0),
        ("{'pred': 'No.', 'score': '2'}", False, 2.0),
        ("Sure! Here it is:\n```python\n{'pred': 'yes', 'score': 3}\n```\n", True, 3.0),
        ("<think>{hm}, maybe {'a': 1}</think>{'pred': 'no', 'score': 1}", False, 1.0),
        ("{'pred': 'yes', 'score': 4} {'pred': 'yes', 'score': 4}", True, 4.0),
        ("I'm sorry to say it: {'pred': 'no', 'score': 1}", False, 1.0),
    ],
)
def test_a_verdict_is_read_from_python_and_json_with_text_around(reply, correct, score):
    assert read_verdict(reply) == Verdict(correct, score)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("yes", "garbage"),
        ("{'pred': 'yes'}", "garbage"),
        ("{'score': 3}", "garbage"),
        ("{'pred': 'maybe', 'score': 3}", "garbage"),
        ("{'pred': 'yes', 'score': 6}", "garbage"),
        ("{'pred': 'yes', 'score': -1}", "garbage"),
        ("{'pred': 'yes', 'score': True}", "garbage"),
        ('{"pred": "yes", "score": NaN}', "garbage"),
        ("{'pred': 'yes', 'score': 'five'}", "garbage"),
        ("{'pred': True, 'score': 5}", "garbage"),
        ("{'pred': 'yes', 'score': 5} {'pred': 'no', 'score': 0}", "garbage"),
        ("{'pred': 'yes', 'score': 5} {'pred': 'yes', 'score': 4}", "garbage"),
        ("{'pred': 'yes', 'score': 1" + "0" * 900 + "}", "garbage"),
        ("{" + "[" * 900 + "}", "garbage"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("Sorry, no.", "refusal"),
        ("As an AI, I have no opinion.", "refusal"),
    ],
)
def test_anything_else_is_no_verdict_with_a_reason(reply, reason):
    with pytest.raises(Unjudged) as fault:
        read_verdict(reply)
    assert fault.value.reason == reason


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("{}'\":,[]()yesnopredscore 015.-\\\n"), max_size=80))
def test_no_text_breaks_the_reader(text):
    try:
        verdict = read_verdict(text)
    except Unjudged:
        return
    assert 0 <= verdict.score <= 5


def test_texts_with_braces_stay_as_they_are():
    messages = PROMPTS["video_chatgpt/1"].messages("{question}", "{0}", "{'pred': 'yes'} {answer}")
    assert "Question: {question}\nCorrect Answer: {0}\n" in messages[1]["content"]
    assert "Predicted Answer: {'pred': 'yes'} {answer}\n\n" in messages[1]["content"]
    assert messages[1]["content"].endswith("{'pred': 'yes', 'score': 4.8}.")


def test_the_prompt_is_that_of_its_authors_as_lmms_eval_has_it():
    """Oracle: the text of lmms-eval's activitynetqa, which follows the authors' script."""
    import ast
    from importlib.util import find_spec
    from pathlib import Path

    package = Path(find_spec("lmms_eval").origin).parent
    tree = ast.parse((package / "tasks" / "activitynetqa" / "utils.py").read_text())
    function = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "get_eval"
    )
    assigned = next(node for node in function.body if isinstance(node, ast.Assign))
    names = {"question": "Q?", "answer": "T", "pred": "A"}
    expected = eval(compile(ast.Expression(assigned.value), "messages", "eval"), names)
    assert PROMPTS["video_chatgpt/1"].messages("Q?", "T", "A") == expected
