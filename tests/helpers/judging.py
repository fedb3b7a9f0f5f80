"""A judge at the stand-in, answers for it, and one pass."""

import asyncio

from judge_server import MODEL, truth

from mustdrop.judging.asking import JudgingPass
from mustdrop.judging.cache import VerdictCache
from mustdrop.judging.judge import ApiKey, Judge, OpenAnswer
from mustdrop.judging.verdicts import Verdict

KEY = "sk-secret-0123456789"


def judge(url, **more):
    fields = {
        "model": MODEL, "base_url": url, "prompt": "video_chatgpt/1",
        "options": {"temperature": 0.0, "max_tokens": 64}, "key_variable": None, "concurrency": 4,
        "calls_per_minute": None, "timeout": 60.0, "attempts": 3, "wait": 0.01,
        "longest_wait": 0.05, "stop_after": 1000, **more,
    }  # fmt: skip
    return Judge(**fields)


def answers(numbers, at):
    """Answers by key, about the questions of these numbers."""
    made = [OpenAnswer(f"q{number}", f"t{number}", "a") for number in numbers]
    return {answer.key(at): answer for answer in made}


def right(answer):
    """Verdict that the stand-in gives about an answer."""
    return Verdict(*truth(int(answer.question[1:])))


def one_pass(at, folder, wanted, most_calls=10_000, key=KEY):
    """Outcome of a pass, and the verdicts that the disk holds after it."""
    with VerdictCache(folder, at) as cache:
        missing = {name: answer for name, answer in wanted.items() if name not in cache.verdicts}
        judging = JudgingPass(at, ApiKey(key), cache, most_calls)
        asyncio.run(judging.run(missing))
    with VerdictCache(folder, at) as cache:
        return judging.outcome, dict(cache.verdicts)
