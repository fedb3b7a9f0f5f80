"""Calls an OpenAI-compatible server: one call, one reply or one fault. Knows no cache and no run.

aiohttp is used, because its time limit covers a whole call: a server that sends one byte now and
then cannot hold a call forever. The judges of lmms-eval (``lmms_eval.llm_judge``) are not used:
they read keys and addresses from fixed variables and from ``.env``, retry every error alike, print
errors as they are, and read a reply without a verdict as "wrong". The ``openai`` package is not
used: it is not among the requirements of this project, and one route of its interface is enough.

Redirects are not followed, netrc files and cookies are not read. Messages name the kind of a fault
only, because aiohttp's own messages may hold the headers of a call, and so the key.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from mustdrop.judging.judge import ApiKey, Judge
from mustdrop.judging.verdicts import (
    BAD_REQUEST,
    CONNECTION,
    CUT_OFF,
    EMPTY,
    GARBAGE,
    RATE_LIMIT,
    REFUSAL,
    SERVER_ERROR,
    TIMEOUT,
    Unjudged,
    Verdict,
    read_verdict,
)

LONGEST_REPLY = 1_000_000  # bytes
# Statuses of HTTP that every further call would get, too.
FINAL = {401: "it refuses the API key", 403: "it refuses access", 404: "it knows no such model"}


class JudgeRefused(ValueError):
    """The server refuses all calls, so that a pass cannot go on."""


@dataclass(frozen=True)
class JudgeReply:
    """Reply of a judge.

    Attributes:
        verdict: Verdict that the text holds.
        text: Text of the reply.
        model: Name of the model that the server reports; None if it reports none.
        tokens: Numbers of tokens of the prompt and of the reply; None if not reported.
    """

    verdict: Verdict
    text: str
    model: str | None
    tokens: tuple[int, int] | None


class Endpoint:
    """Connection to the server of a judge; an asynchronous context manager."""

    def __init__(self, judge: Judge, key: ApiKey) -> None:
        self.judge, self.key = judge, key
        self.url = f"{judge.base_url.rstrip('/')}/chat/completions"
        parts = urlsplit(self.url)
        bypassed = parts.hostname is None or proxy_bypass(parts.hostname)
        self._proxy = None if bypassed else getproxies().get(parts.scheme)

    async def __aenter__(self) -> "Endpoint":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.judge.concurrency),
            timeout=aiohttp.ClientTimeout(total=self.judge.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def call(self, messages: Sequence[Mapping[str, str]]) -> JudgeReply:
        """Make one call.

        Raises:
            Unjudged: If this call gave no verdict.
            JudgeRefused: If every further call would be refused, too.
        """
        request = {"model": self.judge.model, "messages": list(messages), **self.judge.options}
        # The fault is raised behind the handlers, so that it does not carry aiohttp's error along.
        try:
            status, pause, body = await self._post(request)
        except TimeoutError:
            fault = Unjudged(TIMEOUT, f"{self.judge.timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            fault = Unjudged(CONNECTION, type(error).__name__)
        else:
            text = self.key.hidden(_plain(body))
            if status != 200:
                raise self._fault(status, pause, text)
            return _reply(text)
        raise fault

    async def _post(self, request: Mapping[str, Any]) -> tuple[int, float | None, str]:
        """Status, pause that the server asks for, and body of the response."""
        body = b""
        async with self._session.post(
            self.url, json=request, headers=self.key.headers(), allow_redirects=False,
            proxy=self._proxy,
        ) as response:  # fmt: skip
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LONGEST_REPLY:
                    raise Unjudged(GARBAGE, f"a reply of more than {LONGEST_REPLY} bytes")
            pause = response.headers.get("Retry-After", "")
            seconds = float(pause) if pause.isascii() and pause.isdigit() else None
            return response.status, seconds, body.decode("utf-8", "replace")

    def _fault(self, status: int, pause: float | None, text: str) -> Exception:
        """Fault that a status of HTTP stands for."""
        message = f"HTTP {status}: {text.strip()}" if text.strip() else f"HTTP {status}"
        if status in FINAL or 300 <= status < 400:
            reason = FINAL.get(status, "it redirects calls, which is not followed")
            return JudgeRefused(
                f"{self.url} refuses calls to {self.judge.model}: {reason} ({message:.200})"
            )
        if status == 408:
            return Unjudged(TIMEOUT, message)
        if status == 429:
            return Unjudged(RATE_LIMIT, message, pause)
        if status >= 500:
            return Unjudged(SERVER_ERROR, message, pause)
        # Servers that filter contents refuse a prompt with the status of a malformed request.
        return Unjudged(REFUSAL if "content_filter" in text else BAD_REQUEST, message)


def _plain(body: str) -> str:
    """Body of a response without escapes of JSON, behind which a key could hide."""
    try:
        return json.dumps(json.loads(body), ensure_ascii=False)
    except (ValueError, RecursionError):
        return body


def _reply(body: str) -> JudgeReply:
    """Reply with a verdict in the body of a response.

    Raises:
        Unjudged: If the body holds no verdict.
    """
    choice, message, content = _content(body)
    finish = choice.get("finish_reason")
    if message.get("refusal") or finish == "content_filter":
        raise Unjudged(REFUSAL, str(message.get("refusal") or "filtered by the server"))
    if content is None or not content.strip():
        raise Unjudged(CUT_OFF if finish == "length" else EMPTY)
    try:
        verdict = read_verdict(content)
    except Unjudged as fault:
        if finish == "length":
            raise Unjudged(CUT_OFF, fault.detail) from None
        raise
    answer = json.loads(body)
    model, usage = answer.get("model"), answer.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    tokens = counts.get("prompt_tokens"), counts.get("completion_tokens")
    known = all(isinstance(count, int) and count >= 0 for count in tokens)
    return JudgeReply(
        verdict,
        content,
        model if isinstance(model, str) else None,
        (int(tokens[0]), int(tokens[1])) if known else None,  # pyright: ignore[reportArgumentType]
    )


def _content(body: str) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """First choice of a response, its message, and the text of the message."""
    try:
        choice = json.loads(body)["choices"][0]
        message = choice["message"]
        content = message.get("content")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Unjudged(GARBAGE, body) from None
    if not (isinstance(choice, dict) and isinstance(message, dict)):
        raise Unjudged(GARBAGE, body)
    if content is not None and not isinstance(content, str):
        raise Unjudged(GARBAGE, body)
    return choice, message, content


class Pace:
    """Spaces calls evenly, and holds all of them back when the server asks for a pause.

    Args:
        per_minute: Highest number of calls in a minute; None for no limit.
    """

    def __init__(self, per_minute: float | int | None) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def turn(self) -> None:
        """Wait until the next call may be made."""
        loop = asyncio.get_running_loop()
        start = max(loop.time(), self._next)
        self._next = start + self._gap
        await asyncio.sleep(start - loop.time())

    def hold(self, seconds: float | int) -> None:
        """Make no call for some seconds."""
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)
