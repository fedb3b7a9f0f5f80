"""Settings of a judge that cannot work are refused, and the key appears nowhere."""

import pytest
from judging import KEY, judge

from mustdrop.judging.judge import ApiKey, OpenAnswer

URL = "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model", "", "judge.model must be a text"),
        ("prompt", "video_chatgpt/2", "judge.prompt must be one of video_chatgpt/1, got"),
        ("options", {"stream": True}, "judge.options must not set stream"),
        ("concurrency", 0, "judge.concurrency must be a count"),
        ("attempts", True, "judge.attempts must be a count"),
        ("stop_after", -1, "judge.stop_after must be a count"),
        ("timeout", 0.0, "judge.timeout must be a number above 0"),
        ("wait", float("inf"), "judge.wait must be finite"),
        ("calls_per_minute", -5, "judge.calls_per_minute must be"),
        ("base_url", "127.0.0.1:8000/v1", "judge.base_url must be an address such as"),
        ("base_url", "ftp://a/v1", "judge.base_url must be an address such as"),
        ("base_url", "http://a:b/v1", "judge.base_url must be an address such as"),
        ("base_url", "https://a/v1/chat/completions", "must end before /chat/completions"),
    ],
)
def test_a_field_that_cannot_work_is_refused(field, value, message):
    url = {"base_url": URL} | ({field: value} if field == "base_url" else {})
    more = {} if field == "base_url" else {field: value}
    with pytest.raises(ValueError, match=message):
        judge(url["base_url"], **more)


@pytest.mark.parametrize(
    "url", [f"https://user:{KEY}@a/v1", f"https://{KEY}@a/v1", f"https://a/v1?key={KEY}"]
)
def test_a_key_in_an_address_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match="without user, password and query") as error:
        judge(url)
    assert KEY not in str(error.value)


def test_a_key_is_read_from_the_variable_that_the_judge_names(monkeypatch):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    key = ApiKey.of(judge(URL, key_variable="MY_KEY"))
    assert key.headers() == {"Authorization": f"Bearer {KEY}"}
    assert KEY not in repr(key) and KEY not in str(key)
    assert key.hidden(f"no such key: {KEY}!") == "no such key: ***!"
    assert ApiKey.of(judge(URL)).headers() == {}


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_is_an_error_that_names_the_variable(monkeypatch, value):
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ValueError, match="environment variable MY_KEY"):
        ApiKey.of(judge(URL, key_variable="MY_KEY"))


def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(monkeypatch):
    monkeypatch.setenv("MY_KEY", f"{KEY}\nx")
    with pytest.raises(ValueError, match="printable ASCII") as error:
        ApiKey.of(judge(URL, key_variable="MY_KEY"))
    assert KEY not in str(error.value)


def sample(target):
    return {"doc_id": 7, "task": "vqa", "question": "q", "target": target, "answer": "a"}


@pytest.mark.parametrize(("target", "text"), [("two", "two"), (["two"], "two"), (3, "3")])
def test_one_target_is_compared(target, text):
    assert OpenAnswer.of(sample(target)).target == text


@pytest.mark.parametrize("target", [["a", "b"], [], None, {"a": 1}, True])
def test_several_targets_or_none_are_refused(target):
    with pytest.raises(ValueError, match="one target, but sample 7 of vqa has"):
        OpenAnswer.of(sample(target))
