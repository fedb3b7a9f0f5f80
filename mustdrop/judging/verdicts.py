"""Reads a verdict from the text of a judge's reply. Knows no server and no run.

A reply that holds no verdict is never a verdict of "wrong": it raises :class:`Unjudged`.
"""

import ast
import json
import math
import re
import warnings
from dataclasses import dataclass
from typing import Any

TIMEOUT, CONNECTION, RATE_LIMIT = "timeout", "connection", "rate limit"
SERVER_ERROR, BAD_REQUEST = "server error", "bad request"
EMPTY, GARBAGE, REFUSAL, CUT_OFF = "empty", "garbage", "refusal", "cut off"
# Faults that a second call may not have.
PASSING = (TIMEOUT, CONNECTION, RATE_LIMIT, SERVER_ERROR, EMPTY, GARBAGE, CUT_OFF)
HIGHEST = 5.0  # score of the best match
BLOCK = re.compile(r"\{[^{}]{1,1000}\}")
DECLINED = re.compile(
    r"\W*(i['’]?m sorry|i am sorry|sorry|i apologi[sz]e|i can(no|['’])t|"
    r"i['’]?m (not able|unable)|"
    r"i am (not able|unable)|i (must|have to) decline|as an ai)",
    re.IGNORECASE,
)
LONGEST_DETAIL = 200


@dataclass(frozen=True)
class Verdict:
    """Decision of a judge about one answer.

    Attributes:
        correct: Whether the answer matches the target.
        score: Score from 0 to 5, as the judge gave it.
    """

    correct: bool
    score: float


class Unjudged(Exception):
    """There is no verdict about an answer.

    Attributes:
        reason: Kind of fault, such as ``timeout`` or ``garbage``.
        detail: Details for the reader, such as the status of HTTP or the start of the reply.
        pause: Seconds that the server asks to wait before the next call; None if it names none.
    """

    def __init__(self, reason: str, detail: str = "", pause: float | None = None) -> None:
        self.reason, self.detail, self.pause = reason, detail[:LONGEST_DETAIL], pause
        super().__init__(f"{reason}: {self.detail}" if detail else reason)

    @property
    def passing(self) -> bool:
        """Whether another call may give a verdict."""
        return self.reason in PASSING


def read_verdict(reply: str) -> Verdict:
    """Verdict in a reply: a dictionary with ``pred`` and ``score``, as Python or JSON.

    Text around the dictionary is ignored. Several dictionaries that disagree are no verdict.

    Raises:
        Unjudged: If the reply holds no verdict.
    """
    text = reply.strip()
    if not text:
        raise Unjudged(EMPTY)
    verdicts = {_verdict(block) for block in BLOCK.findall(text)} - {None}
    if len(verdicts) == 1:
        (verdict,) = verdicts
        assert verdict is not None
        return verdict
    declined = not verdicts and DECLINED.match(text)
    raise Unjudged(REFUSAL if declined else GARBAGE, text)


def _verdict(block: str) -> Verdict | None:
    """Verdict of one dictionary in a reply; None if it holds none."""
    value = _parsed(block)
    if not isinstance(value, dict):
        return None
    correct = {"yes": True, "no": False}.get(str(value.get("pred")).strip(" .\"'").lower())
    score = _score(value.get("score"))
    return None if correct is None or score is None else Verdict(correct, score)


def _score(value: Any) -> float | None:
    """Number from 0 to 5, also one in quotes; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        score = float(value)
    except (ValueError, OverflowError):
        return None
    return score if math.isfinite(score) and 0 <= score <= HIGHEST else None


def _parsed(block: str) -> Any:
    try:
        return json.loads(block)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python about odd escapes in the reply
            return ast.literal_eval(block)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
