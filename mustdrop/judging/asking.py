"""Asks a judge about many answers: several calls at a time, repeated calls, a limit of all calls.

Knows no run: answers go in by key, and every answer ends with a verdict in the cache or with the
reason why there is none.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential, wait_random

from mustdrop.judging.cache import VerdictCache
from mustdrop.judging.endpoint import Endpoint, JudgeReply, Pace
from mustdrop.judging.judge import ApiKey, Judge, OpenAnswer
from mustdrop.judging.verdicts import REFUSAL, Unjudged

JITTER = 0.5  # share of the first wait


@dataclass
class PassOutcome:
    """Outcome of a pass.

    Attributes:
        faults: Answers without a verdict by key; answers that no call was made about are not in it.
        calls: Number of calls that were made.
        tokens: Numbers of tokens of prompts and replies, as far as the server reported them.
        stopped: Reason why the pass ended before its last answer; None if it did not.
    """

    faults: dict[str, Unjudged] = field(default_factory=dict)
    calls: int = 0
    tokens: tuple[int, int] = (0, 0)
    stopped: str | None = None


class JudgingPass:
    """One pass over answers that have no verdict yet.

    Args:
        judge: Judge.
        key: API key of the judge.
        cache: Open cache of the judge, to which verdicts are added.
        most_calls: Highest number of calls, repeated ones included.
        on_answer: Called after each answer, with its fault or None.

    Attributes:
        outcome: Outcome so far; valid also after an interruption.
    """

    def __init__(
        self,
        judge: Judge,
        key: ApiKey,
        cache: VerdictCache,
        most_calls: int,
        on_answer: Callable[[Unjudged | None], None] = lambda fault: None,
    ) -> None:
        self.judge, self.cache, self.most_calls = judge, cache, most_calls
        self.outcome = PassOutcome()
        self._endpoint, self._pace = Endpoint(judge, key), Pace(judge.calls_per_minute)
        self._on_answer, self._in_a_row = on_answer, 0
        doubled = wait_exponential(multiplier=judge.wait, max=judge.longest_wait)
        self._backoff = doubled + wait_random(0, JITTER * judge.wait)

    async def run(self, answers: Mapping[str, OpenAnswer]) -> None:
        """Ask about all answers, until the last one, or until the pass is stopped.

        Raises:
            JudgeRefused: If the server refuses all calls; verdicts so far are in the cache.
            Unwritable: If a verdict cannot be written.
        """
        queue = iter(answers.items())
        async with self._endpoint:
            count = min(self.judge.concurrency, len(answers))
            workers = [asyncio.create_task(self._work(queue)) for _ in range(count)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, queue: Iterator[tuple[str, OpenAnswer]]) -> None:
        """Take answers from the queue, which all workers share."""
        for key, answer in queue:
            try:
                reply = await self._judged(answer)
            except _Stopped:
                return
            except Unjudged as fault:
                self.outcome.faults[key] = fault
                self._note_fault(fault)
                self._on_answer(fault)
            else:
                self.cache.add(key, answer, reply)
                self._in_a_row = 0
                self._on_answer(None)
            if self.outcome.stopped is not None:
                return

    async def _judged(self, answer: OpenAnswer) -> JudgeReply:
        """Reply about one answer, after as many calls as it needs and may have.

        Raises:
            Unjudged: If no call gave a verdict.
        """
        messages = self.judge.messages.messages(answer.question, answer.target, answer.answer)
        last: Unjudged | None = None
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(self.judge.attempts),
            wait=self._wait,
            retry=retry_if_exception(self._call_again),
            reraise=True,
        ):
            with attempt:
                await self._pace.turn()
                if not self._take_call():
                    raise last or _Stopped
                try:
                    reply = await self._endpoint.call(messages)
                except Unjudged as fault:
                    last = fault
                    raise
                self._count_tokens(reply)
                return reply
        raise AssertionError("a retrying loop ends with a reply or an error")

    def _call_again(self, error: BaseException) -> bool:
        """Whether an error is one that another call may not have."""
        return isinstance(error, Unjudged) and error.passing and self.outcome.stopped is None

    def _wait(self, state: RetryCallState) -> float:
        """Seconds before the next call about an answer."""
        seconds = self._backoff(state)
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, Unjudged) and error.pause is not None:
            seconds = max(seconds, min(error.pause, self.judge.longest_wait))
            self._pace.hold(seconds)
        return seconds

    def _take_call(self) -> bool:
        """Count a call; False if the pass is stopped, as it is when no call is left."""
        if self.outcome.stopped is None and self.outcome.calls >= self.most_calls:
            self.outcome.stopped = f"all {self.most_calls} calls are used up"
        if self.outcome.stopped is not None:
            return False
        self.outcome.calls += 1
        return True

    def _count_tokens(self, reply: JudgeReply) -> None:
        if reply.tokens is not None:
            before = self.outcome.tokens
            self.outcome.tokens = before[0] + reply.tokens[0], before[1] + reply.tokens[1]

    def _note_fault(self, fault: Unjudged) -> None:
        """Stop the pass after too many answers in a row without a verdict."""
        self._in_a_row += fault.reason != REFUSAL
        if self._in_a_row >= self.judge.stop_after and self.outcome.stopped is None:
            self.outcome.stopped = (
                f"{self._in_a_row} answers in a row got no verdict, the last for: {fault}"
            )


class _Stopped(Exception):
    """The pass is stopped, so that no call is made."""
