"""A pass gives an answer one verdict, or the reason why there is none, whatever happens."""

import json
import time
from collections import Counter

import pytest
from judge_server import JudgeServer
from judging import KEY, answers, judge, one_pass, right

from mustdrop.judging.cache import VerdictCache, cache_file, read_verdicts
from mustdrop.judging.endpoint import JudgeRefused
from mustdrop.runs.disk import Unwritable
from mustdrop.runs.folder import TornFile
from mustdrop.runs.writer import Busy


@pytest.fixture
def server():
    with JudgeServer() as server:
        yield server


def number(prompt):
    return int(prompt.partition("Question: q")[2].partition("\n")[0])


def test_every_answer_gets_the_judges_verdict_and_one_call(server, tmp_path):
    at = judge(server.url)
    wanted = answers(range(30), at)
    outcome, verdicts = one_pass(at, tmp_path, wanted)
    assert verdicts == {key: right(answer) for key, answer in wanted.items()}
    assert set(server.calls.values()) == {1} and outcome.calls == server.n == 30
    assert outcome.faults == {} and outcome.stopped is None
    assert outcome.tokens == (3000, 300)
    request = server.requests[0]
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("stand-in", 0, 64)
    assert server.keys == {f"Bearer {KEY}"}


def test_a_second_pass_asks_about_nothing(server, tmp_path):
    at = judge(server.url)
    _, first = one_pass(at, tmp_path, answers(range(5), at))
    outcome, second = one_pass(at, tmp_path, answers(range(5), at))
    assert second == first and outcome.calls == 0 and server.n == 5


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"options": {"max_tokens": 9}}],
)
def test_another_judge_shares_no_verdict(server, tmp_path, change):
    at, other = judge(server.url), judge(server.url, **change)
    one_pass(at, tmp_path, answers(range(3), at))
    outcome, _ = one_pass(other, tmp_path, answers(range(3), other))
    assert outcome.calls == 3


def test_the_address_and_the_pace_of_calls_are_no_part_of_a_judge():
    at, other = judge("http://a/v1"), judge("https://b/v1", concurrency=1, timeout=9.0)
    assert answers(range(3), at).keys() == answers(range(3), other).keys()


PASSING = {
    "hang": "timeout", "drip": "timeout", "cut": "connection", "429": "rate limit",
    "500": "server error", "empty": "empty", "none": "empty", "garbage": "garbage",
    "no json": "garbage", "no choices": "garbage", "high": "garbage", "both": "garbage",
    "truncated": "garbage", "cut off": "cut off",
}  # fmt: skip
SLOW = ("hang", "drip")
FINAL = {"refusal": "refusal", "filtered": "refusal", "400": "bad request"}


def limit(fault):
    """Seconds of a call: few where the server hangs, else more than a loaded machine needs."""
    return 1.5 if fault in SLOW else 60.0


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_costs_a_call_and_no_verdict(server, tmp_path, fault):
    server.fault = lambda prompt, call: fault if number(prompt) % 4 == 0 and call == 1 else None
    at = judge(server.url, timeout=limit(fault), attempts=4)
    wanted = answers(range(8), at)
    outcome, verdicts = one_pass(at, tmp_path, wanted)
    assert verdicts == {key: right(answer) for key, answer in wanted.items()}
    assert outcome.faults == {} and outcome.calls == server.n
    assert server.n == 10 or (server.n > 10 and fault in SLOW)


@pytest.mark.parametrize(("fault", "reason"), [*PASSING.items(), *FINAL.items()])
def test_a_fault_that_stays_is_a_reason_and_no_verdict(server, tmp_path, fault, reason):
    server.fault = lambda prompt, call: fault if number(prompt) == 2 else None
    at = judge(server.url, timeout=limit(fault), attempts=2)
    wanted = answers(range(4), at)
    outcome, verdicts = one_pass(at, tmp_path, wanted)
    (failed,) = answers([2], at)
    assert {key: fault.reason for key, fault in outcome.faults.items()} == {failed: reason}
    assert verdicts.keys() == wanted.keys() - {failed}
    assert server.n == 3 + (1 if fault in FINAL else 2) or fault in SLOW
    server.fault = lambda prompt, call: None
    outcome, verdicts = one_pass(at, tmp_path, wanted)  # the same command asks again
    assert outcome.calls == 1 and verdicts.keys() == wanted.keys()


@pytest.mark.parametrize("fault", ["401", "404", "redirect"])
def test_a_server_that_refuses_all_calls_ends_the_pass_and_the_key_is_not_shown(
    server, tmp_path, fault
):
    server.fault = lambda prompt, call: fault if number(prompt) == 3 else None
    at = judge(server.url, concurrency=1)
    with pytest.raises(JudgeRefused, match="stand-in: it ") as error:
        one_pass(at, tmp_path, answers(range(6), at))
    assert KEY not in str(error.value) and "***" in str(error.value)
    assert len(read_verdicts(cache_file(tmp_path, at))) == 3  # those before it are kept
    assert server.n == 4  # a redirect is not followed


def test_a_dead_server_ends_the_pass_after_some_answers(server, tmp_path):
    at = judge(server.url, attempts=1, stop_after=3, concurrency=1)
    wanted = answers(range(10), at)
    server.die()
    outcome, verdicts = one_pass(at, tmp_path, wanted)
    assert verdicts == {} and outcome.calls == 3
    assert "3 answers in a row" in outcome.stopped and "connection" in outcome.stopped
    assert Counter(fault.reason for fault in outcome.faults.values()) == {"connection": 3}


def test_refusals_in_a_row_do_not_end_the_pass(server, tmp_path):
    server.fault = lambda prompt, call: "refusal" if number(prompt) < 5 else None
    at = judge(server.url, stop_after=2, concurrency=1)
    outcome, verdicts = one_pass(at, tmp_path, answers(range(8), at))
    assert outcome.stopped is None and len(verdicts) == 3 and len(outcome.faults) == 5


def test_the_budget_counts_every_call_and_is_never_exceeded(server, tmp_path):
    server.fault = lambda prompt, call: "500" if number(prompt) % 2 else None
    at = judge(server.url)
    outcome, verdicts = one_pass(at, tmp_path, answers(range(20), at), most_calls=12)
    assert outcome.calls == server.n == 12
    assert outcome.stopped == "all 12 calls are used up"
    assert 0 < len(verdicts) < 12
    assert verdicts.keys().isdisjoint(outcome.faults)


def test_calls_run_at_once_and_not_more_than_so_many(server, tmp_path):
    server.delay = 0.05
    at = judge(server.url, concurrency=3)
    one_pass(at, tmp_path, answers(range(9), at))
    assert server.most_at_once == 3


def test_calls_keep_their_distance(server, tmp_path):
    at = judge(server.url, calls_per_minute=1200.0)
    start = time.monotonic()
    one_pass(at, tmp_path, answers(range(9), at))
    assert 8 * 0.05 <= time.monotonic() - start < 5


def test_waits_grow_up_to_their_limit(server, tmp_path):
    server.fault = lambda prompt, call: "500"
    at = judge(server.url, attempts=5, wait=0.05, longest_wait=0.2)
    start = time.monotonic()
    one_pass(at, tmp_path, answers([1], at))
    seconds = time.monotonic() - start
    assert 0.05 + 0.1 + 0.2 + 0.2 <= seconds < 2


def test_a_key_that_a_reply_repeats_is_not_stored(server, tmp_path):
    server.fault = lambda prompt, call: ("echo", "429", "500")[number(prompt)]
    at = judge(server.url, attempts=1)
    outcome, verdicts = one_pass(at, tmp_path, answers(range(3), at))
    assert len(verdicts) == 1 and len(outcome.faults) == 2
    stored = cache_file(tmp_path, at).read_text() + str([*map(repr, outcome.faults.values())])
    assert "***" in stored and KEY not in stored
    details = [fault.detail for fault in outcome.faults.values()]
    assert all(KEY not in detail and "***" in detail for detail in details)


def test_a_key_behind_escapes_of_json_is_not_stored(server, tmp_path):
    server.fault = lambda prompt, call: "escaped"
    outcome, _ = one_pass(judge(server.url, attempts=1), tmp_path, answers([1], judge(server.url)))
    (fault,) = outcome.faults.values()
    assert KEY not in fault.detail and "***" in fault.detail


def test_calls_go_through_the_proxy_of_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    at = judge("http://judge.invalid/v1")
    outcome, verdicts = one_pass(at, tmp_path, answers(range(2), at))
    assert len(verdicts) == 2 and outcome.faults == {}


def test_a_torn_last_verdict_is_cut_and_a_broken_one_is_named(server, tmp_path):
    at = judge(server.url)
    wanted = answers(range(4), at)
    one_pass(at, tmp_path, wanted)
    path = cache_file(tmp_path, at)
    path.write_bytes(path.read_bytes()[:-7])
    outcome, verdicts = one_pass(at, tmp_path, wanted)
    assert outcome.calls == 1 and verdicts.keys() == wanted.keys()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "{}\n", *lines[1:]]))
    with pytest.raises(TornFile, match="line 2"):
        VerdictCache(tmp_path, at)


def test_one_process_at_a_time_writes_verdicts_of_a_judge(server, tmp_path):
    at, other = judge(server.url), judge(server.url, model="other")
    with VerdictCache(tmp_path, at):
        with pytest.raises(Busy, match="another process judges"):
            VerdictCache(tmp_path, at)
        with VerdictCache(tmp_path, other):
            pass


def test_a_full_disk_ends_the_pass_and_leaves_whole_lines(server, tmp_path, monkeypatch):
    at = judge(server.url, concurrency=1)
    count = iter(range(100))

    def full(descriptor):
        if next(count) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("mustdrop.judging.cache.os.fsync", full)
    with pytest.raises(Unwritable, match="No space left on device; its 2 verdicts are safe"):
        one_pass(at, tmp_path, answers(range(6), at))
    lines = cache_file(tmp_path, at).read_text().splitlines()
    assert [json.loads(line)["question"] for line in lines] == ["q0", "q1"]
