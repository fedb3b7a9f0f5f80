"""A judging process that is killed loses no verdict, and no answer with a verdict is sent again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import results
from judge_server import MODEL, JudgeServer, truth
from judging import answers, judge, one_pass, right

from mustdrop.judging.cache import cache_file, read_verdicts
from mustdrop.runs.folder import read_samples
from mustdrop.runs.judgements import read_judgements

ROOT = Path(__file__).parents[2]
PASS = """
import sys
from pathlib import Path
from judging import answers, judge, one_pass
at = judge(sys.argv[1])
one_pass(at, Path(sys.argv[2]), answers(range(60), at))
"""


def started(*command, folder):
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "helpers")))
    return subprocess.Popen(
        [sys.executable, *command], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def killed_after(process, path, verdicts):
    """Keys that the disk holds after a kill -9 at so many verdicts or a little more."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= verdicts:
            break
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read().decode()[-2000:]
    process.send_signal(signal.SIGKILL)
    process.wait()
    return read_verdicts(path)


def test_a_killed_pass_keeps_its_verdicts_and_does_not_ask_about_them_again(tmp_path):
    with JudgeServer() as server:
        server.delay = 0.03
        at = judge(server.url)
        wanted, path = answers(range(60), at), cache_file(tmp_path, at)
        process = started("-c", PASS, server.url, str(tmp_path), folder=tmp_path)
        kept = killed_after(process, path, 12)
        assert 12 <= len(kept) < 60
        server.over.wait(0.2)  # calls that were on their way
        before = Counter(server.calls)
        server.delay = 0.0
        _, verdicts = one_pass(at, tmp_path, wanted)
        assert verdicts == {key: right(answer) for key, answer in wanted.items()}
        later = {prompt for prompt in server.calls if server.calls[prompt] > before[prompt]}
        texts = {f"Question: {wanted[key].question}\n" for key in kept}
        assert not any(text in prompt for prompt in later for text in texts)
        # only the calls that were under way when the process died were made twice
        assert server.n <= 60 + at.concurrency


FAULTS = ("hang", "garbage", "429", "500", "cut")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_call_in_five_fails_in_five_ways_and_the_process_is_killed_three_times(tmp_path):
    runs, n = ("vanilla", "random", "mustdrop"), 120
    for method in runs:
        results.write(tmp_path / "outputs", method, scores=(1.0, 0.0) * (n // 2))
    # each run has other answers, so that nothing is shared
    folders = sorted(path.parent for path in (tmp_path / "outputs").rglob("record.json"))
    for index, folder in enumerate(folders):
        lines = [{**line, "answer": f"answer {index}"} for line in read_samples(folder)]
        (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draws = np.random.default_rng(0)
    refused = {f"Question: q{number}\n" for number in (5, 50, 100)}

    def fault(prompt, call):
        if any(text in prompt for text in refused):
            return "refusal"
        return FAULTS[draws.integers(5)] if draws.random() < 0.2 else None

    with JudgeServer() as server:
        server.fault, server.delay = fault, 0.02
        command = [
            "-m", "mustdrop.cli", "judge", "outputs", "judge=local", f"judge.model={MODEL}",
            f"judge.base_url={server.url}", "judge.timeout=0.5", "judge.wait=0.02",
            "judge.longest_wait=0.1", "judge.attempts=4", "--budget", "2000",
        ]  # fmt: skip
        at = judge(server.url)
        path = tmp_path / "outputs" / ".judging" / cache_file(Path(), at).name
        asked_again = []
        for verdicts in (60, 150, 240):
            process = started(*command, folder=tmp_path)
            kept = killed_after(process, path, verdicts)
            server.over.wait(0.7)
            asked_again.append((set(kept), Counter(server.calls)))
        process = started(*command, folder=tmp_path)
        assert process.wait(timeout=300) == 0, process.stderr.read().decode()[-2000:]

        lines = [json.loads(line) for line in path.read_text().splitlines()]
        keys = [line["key"] for line in lines]
        assert len(keys) == len(set(keys))  # every answer was judged once
        prompts = {
            line["key"]: f"Question: {line['question']}\nCorrect Answer: {line['target']}\n"
            f"Predicted Answer: {line['answer']}\n"
            for line in lines
        }
        for kept, before in asked_again:
            later = [prompt for prompt in server.calls if server.calls[prompt] > before[prompt]]
            texts = [prompts[key] for key in kept]
            assert not any(text in prompt for prompt in later for text in texts)
        twice = sum(count - 1 for count in server.true_replies.values())
        assert twice <= 3 * 8  # calls under way when the process died

        for folder in folders:
            samples = read_samples(folder)
            (judgements,) = read_judgements(folder)
            totals = judgements.totals(samples)
            assert totals.judged + sum(totals.unjudged.values()) == n
            assert totals.unjudged.pop("refusal") == len(refused)
            assert sum(totals.unjudged.values()) <= 3 and "no call" not in totals.unjudged
            judged = [s["doc_id"] for s in samples if "correct" in judgements.entry(s)]
            expected = [truth(doc) for doc in judged]
            assert totals.accuracy == pytest.approx(np.mean([right for right, _ in expected]))
            assert totals.score == pytest.approx(np.mean([score for _, score in expected]))
