"""`mustdrop judge` prints the calls it needs before it makes them; verdicts land in the runs."""

import json

import pytest
import results
from judge_server import JudgeServer, truth
from judging import KEY

from experiments import judge as script
from experiments.cli.errors import ending
from mustdrop.cli.main import main
from mustdrop.judging.progress import JudgingProgress
from mustdrop.runs.folder import read_samples
from mustdrop.runs.judgements import judgement_files, read_judgements
from mustdrop.runs.writer import RunWriter


@pytest.fixture
def server():
    with JudgeServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two runs with the same answers, in the working folder's outputs."""
    monkeypatch.chdir(tmp_path)
    results.write(tmp_path / "outputs", "vanilla", "none", 576.0)
    return results.write(tmp_path / "outputs", "random")


def judge(server, *arguments, **more):
    fields = {"model": "stand-in", "base_url": server.url, "wait": 0.01, "longest_wait": 0.05}
    fields |= more
    given = [f"judge.{name}={value}" for name, value in fields.items()]
    return ending(lambda: script.main(["outputs", "judge=local", *given, *arguments]))


def test_a_dry_run_says_calls_and_tokens_and_makes_none(server, folder, capsys):
    assert judge(server, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "2 runs, 80 samples, 40 different answers, 0 of them with a verdict" in text
    assert "calls needed: 40; at most 200 if calls fail" in text
    assert "replies at most 2,560" in text
    assert server.n == 0 and not (folder.parents[4] / ".judging").exists()
    assert not judgement_files(folder)


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        ((), "--budget must be given: 40 calls are needed, --budget 40"),
        (("--budget", "39"), "--budget 39 is too small: 40 calls are needed"),
    ],
)
def test_without_a_budget_that_is_large_enough_no_call_is_made(
    server, folder, capsys, budget, sentence
):
    assert judge(server, *budget) == 2
    assert sentence in capsys.readouterr().err
    assert server.n == 0


def test_verdicts_land_in_every_run_and_equal_answers_cost_one_call(server, folder, capsys):
    assert judge(server, "--budget", "40") == 0
    assert server.n == 40
    for run in (folder, *folder.parents[2].glob("vanilla/none/*")):
        samples = read_samples(run)
        (judgements,) = read_judgements(run)
        assert judgements.name == "stand-in, video_chatgpt/1"
        for sample in samples:
            entry = judgements.entry(sample)
            assert (entry["correct"], entry["score"]) == truth(sample["doc_id"])
        totals = judgements.totals(samples)
        assert (totals.judged, totals.unjudged) == (40, {})
        assert totals.accuracy == pytest.approx(26 / 40)
        assert totals.score == pytest.approx(sum(n % 6 for n in range(40)) / 40)
    text = capsys.readouterr().out
    assert "judged 40 of 40 · accuracy 0.650 · score" in text
    assert "40 calls" in text and "prompts 4,000, replies 400" in text
    before = [path.read_bytes() for path in judgement_files(folder)]
    assert judge(server) == 0  # nothing is needed, so no budget is, and no file changes
    assert server.n == 40 and before == [path.read_bytes() for path in judgement_files(folder)]


def test_an_unjudged_answer_keeps_its_reason_until_it_is_judged(server, folder, capsys):
    server.fault = lambda prompt, call: "garbage" if "Question: q7\n" in prompt else None
    assert judge(server, "--budget", "60") == 0
    assert "judged 39 of 40 · accuracy" in capsys.readouterr().out
    samples = read_samples(folder)

    def entry():
        (judgements,) = read_judgements(folder)
        return judgements.entry(samples[7]), judgements.totals(samples)

    found, totals = entry()
    assert found["unjudged"] == "garbage" and found["detail"].startswith("The moon")
    assert (totals.judged, totals.unjudged) == (39, {"garbage": 1})
    assert totals.accuracy == pytest.approx(25 / 39)  # question 7 counts neither way
    server.die()
    assert judge(server, "--budget", "60", stop_after=1, attempts=1) == 1
    assert entry()[0]["unjudged"] == "connection"
    assert "stopped early: 1 answers in a row" in capsys.readouterr().err
    server.live()
    server.fault = lambda prompt, call: None
    assert judge(server, "--budget", "1") == 0
    assert entry()[0]["correct"] is True and server.n == 39 + 5 + 1


def test_a_pass_that_stops_keeps_the_reasons_of_earlier_ones(server, folder):
    server.fault = lambda prompt, call: "garbage" if "q7\n" in prompt or "q8\n" in prompt else None
    assert judge(server, "--budget", "60") == 0
    server.die()
    assert judge(server, "--budget", "60", stop_after=1, attempts=1, concurrency=1) == 1
    (judgements,) = read_judgements(folder)
    totals = judgements.totals(read_samples(folder))
    assert totals.unjudged == {"connection": 1, "garbage": 1} and totals.judged == 38


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (SystemExit(143), None)])
def test_a_stopped_pass_writes_what_it_has_and_goes_on(server, folder, monkeypatch, stop, code):
    add = JudgingProgress.add

    def stopping(progress, fault):
        add(progress, fault)
        if progress.n == 5:
            raise stop

    monkeypatch.setattr(JudgingProgress, "add", stopping)
    if code is None:  # as the signal of a cluster does
        with pytest.raises(SystemExit):
            judge(server, "--budget", "40")
    else:
        assert judge(server, "--budget", "40") == code
    (judgements,) = read_judgements(folder)
    totals = judgements.totals(read_samples(folder))
    assert 5 <= totals.judged < 40 and totals.unjudged == {"no call": 40 - totals.judged}
    monkeypatch.setattr(JudgingProgress, "add", add)
    calls = server.n
    assert judge(server, "--budget", "40") == 0
    assert server.n == calls + 40 - totals.judged
    (judgements,) = read_judgements(folder)
    assert judgements.totals(read_samples(folder)).judged == 40


def test_two_judges_stand_side_by_side(server, folder):
    for more in ({}, {"model": "other"}, {"options": "{max_tokens: 9}"}):
        assert judge(server, "--budget", "40", **more) == 0
    names = {judgements.name for judgements in read_judgements(folder)}
    assert len(names) == 3 and "other, video_chatgpt/1" in names
    assert sum(name.startswith("stand-in, video_chatgpt/1 #") for name in names) == 2


def test_an_answer_that_changed_is_not_judged(server, folder):
    assert judge(server, "--budget", "40") == 0
    path = folder / "samples.jsonl"
    samples = read_samples(folder)
    samples[0]["answer"] = "other"
    path.write_text("".join(json.dumps(line) + "\n" for line in samples))
    (judgements,) = read_judgements(folder)
    assert judgements.entry(samples[0]) == {"unjudged": "no call"}
    assert judgements.totals(samples).judged == 39
    assert judge(server, "--budget", "1") == 0
    (judgements,) = read_judgements(folder)
    assert judgements.totals(samples).judged == 40


def test_a_run_that_starts_again_puts_its_verdicts_aside(server, folder, tmp_path):
    from mustdrop.runs.fingerprint import Fingerprint

    assert judge(server, "--budget", "40") == 0
    with RunWriter(folder, Fingerprint({}, {}), "benchmark: {}\n", force=True):
        pass
    assert not judgement_files(folder) and (folder / "judgements.1").is_dir()


def test_runs_that_are_unfinished_or_torn_are_named(server, folder, capsys):
    (folder / "record.json").unlink()
    assert judge(server, "--dry-run") == 0
    assert f"not finished, so not judged: {folder.relative_to(folder.parents[5])}" in (
        capsys.readouterr().err
    )
    (vanilla,) = folder.parents[2].glob("vanilla/none/*")
    lines = (vanilla / "samples.jsonl").read_text().splitlines(keepends=True)
    (vanilla / "samples.jsonl").write_text("".join(lines[:-1]))
    assert judge(server, "--dry-run") == 1
    assert "the record says 40 samples, the file has 39" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "no results folder nowhere"),
        (["outputs", "judge=gpt"], "no judge 'gpt'"),
        (["outputs", "judge.modl=a"], "no field judge.modl; did you mean judge.model?"),
        (["outputs", "cach=a"], "no field cach"),
        (["outputs", "judge=local"], "judge.model has no value"),
        (["outputs", "judge.attempts=0"], "judge.attempts must be a count"),
        (["outputs", "--budget", "-1"], "--budget must be a count of calls"),
    ],
)
def test_bad_input_is_one_sentence(folder, capsys, arguments, sentence):
    assert main(["judge", *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


def test_the_key_is_in_no_file_and_on_no_stream(server, folder, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    cycle = ("echo", "429", "500", "400", None)
    server.fault = lambda prompt, call: cycle[server.n % 5]
    assert judge(server, "--budget", "200", key_variable="JUDGE_KEY") == 0
    server.fault = lambda prompt, call: "401"
    assert judge(server, "--budget", "200", key_variable="JUDGE_KEY", model="other") == 2
    assert server.keys == {f"Bearer {KEY}"}
    streams = capsys.readouterr()
    assert "refuses the API key" in streams.err
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 4
    assert not any(KEY in text for text in (*texts, streams.out, streams.err))


def test_a_missing_key_ends_the_command_before_a_call(server, folder, capsys, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    assert judge(server, "--budget", "40", key_variable="JUDGE_KEY") == 2
    assert "set the environment variable JUDGE_KEY" in capsys.readouterr().err
    assert server.n == 0
