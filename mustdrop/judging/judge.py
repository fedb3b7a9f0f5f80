"""Settings of a judge, and its API key. Knows no run and makes no call."""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final
from urllib.parse import urlsplit

from mustdrop.judging.prompts import PROMPTS, JudgePrompt
from mustdrop.runs.judgements import identity_digest

# Fields of a request that this package sets.
RESERVED = ("model", "messages", "stream", "n")
Number = float | int


@final
@dataclass(frozen=True)
class Judge:
    """A language model behind an OpenAI-compatible server, and how it is called.

    Model, prompt and options decide a verdict; they are the judge's identity. The other fields
    may change between two passes.

    Attributes:
        model: Name of the model at the server.
        base_url: Address of the server, up to ``/v1``.
        prompt: Name and version of the prompt, such as ``video_chatgpt/1``.
        options: Further fields of a request, such as ``temperature`` and ``max_tokens``.
        key_variable: Name of the environment variable with the API key; None sends no key.
        concurrency: Number of calls at the same time.
        calls_per_minute: Highest rate of calls; None for no limit.
        timeout: Seconds that one call may take in all.
        attempts: Highest number of calls about one answer.
        wait: Seconds before the second call about an answer; doubled before each further one.
        longest_wait: Highest number of seconds between two calls about an answer.
        stop_after: Number of answers in a row without a verdict after which the pass stops;
            refusals do not count.

    Raises:
        ValueError: If a field cannot be used.
    """

    model: str
    base_url: str
    prompt: str
    options: Mapping[str, Any]
    key_variable: str | None
    concurrency: int
    calls_per_minute: Number | None
    timeout: Number
    attempts: int
    wait: Number
    longest_wait: Number
    stop_after: int

    def __post_init__(self) -> None:
        for name in ("model", "base_url", "prompt"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"judge.{name} must be a text, got {getattr(self, name)!r}")
        if not isinstance(self.options, Mapping):
            raise ValueError(f"judge.options must be fields of a request, got {self.options!r}")
        _check_address(self.base_url)
        if self.prompt not in PROMPTS:
            known = ", ".join(PROMPTS)
            raise ValueError(f"judge.prompt must be one of {known}, got {self.prompt!r}")
        if reserved := [name for name in RESERVED if name in self.options]:
            raise ValueError(f"judge.options must not set {', '.join(reserved)}")
        for name in ("concurrency", "attempts", "stop_after"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"judge.{name} must be a count of 1 or more, got {value!r}")
        for name in ("calls_per_minute", "timeout", "wait", "longest_wait"):
            value = getattr(self, name)
            if value is None and name == "calls_per_minute":
                continue
            if isinstance(value, bool) or not isinstance(value, float | int) or not value > 0:
                raise ValueError(f"judge.{name} must be a number above 0, got {value!r}")
            if not math.isfinite(value):
                raise ValueError(f"judge.{name} must be finite, got {value!r}")

    @property
    def name(self) -> str:
        """Name for tables: model and prompt."""
        return f"{self.model}, {self.prompt}"

    @property
    def identity(self) -> dict[str, Any]:
        """Entries that decide a verdict: model, prompt and options."""
        return {"model": self.model, "prompt": self.prompt, "options": dict(self.options)}

    @property
    def file_name(self) -> str:
        """Name for files, without an ending; two identities have two names."""
        words = re.sub(r"[^\w.-]+", "-", f"{self.model}-{self.prompt}", flags=re.ASCII)
        return f"{words}-{identity_digest(self.identity)}"

    @property
    def messages(self) -> JudgePrompt:
        """Prompt of the judge."""
        return PROMPTS[self.prompt]


@dataclass(frozen=True)
class OpenAnswer:
    """An answer to judge.

    Attributes:
        question: Text of the question, as the model read it.
        target: Right answer.
        answer: Answer of the model.
    """

    question: str
    target: str
    answer: str

    @classmethod
    def of(cls, sample: Mapping[str, Any]) -> "OpenAnswer":
        """Answer of a sample.

        Raises:
            ValueError: If the sample does not have exactly one target.
        """
        target = sample["target"]
        if isinstance(target, list) and len(target) == 1:
            (target,) = target
        if not isinstance(target, str | int | float) or isinstance(target, bool):
            raise ValueError(
                f"a judge compares an answer with one target, but sample {sample['doc_id']} of "
                f"{sample['task']} has {target!s:.60}"
            )
        return cls(sample["question"], str(target), sample["answer"])

    def key(self, judge: Judge) -> str:
        """Key of the verdict: a hash of the judge's identity, question, target and answer."""
        parts = [judge.identity, self.question, self.target, self.answer]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ApiKey:
    """An API key. It is sent to the server, and no text of this program shows it.

    Attributes:
        secret: Text of the key; None for a server without keys.
    """

    secret: str | None = field(repr=False)

    @classmethod
    def of(cls, judge: Judge) -> "ApiKey":
        """Key from the environment variable that the judge names.

        Raises:
            ValueError: If the variable is missing, or holds no key.
        """
        name = judge.key_variable
        if name is None:
            return cls(None)
        secret = os.environ.get(name, "").strip()
        if not secret:
            raise ValueError(
                f"the API key is missing: set the environment variable {name}, choose another one "
                "by judge.key_variable=NAME, or give judge.key_variable=null for a server without "
                "keys"
            )
        if not re.fullmatch(r"[!-~]+", secret):
            raise ValueError(
                f"the environment variable {name} must hold an API key of printable ASCII "
                "characters without spaces"
            )
        return cls(secret)

    def headers(self) -> dict[str, str]:
        """Headers of a call."""
        return {} if self.secret is None else {"Authorization": f"Bearer {self.secret}"}

    def hidden(self, text: str) -> str:
        """Text of a server without the key, which the server may repeat."""
        return text if self.secret is None else text.replace(self.secret, "***")


def _check_address(base_url: str) -> None:
    """Raise ValueError if an address cannot be used; a password in it is not repeated."""
    try:
        parts = urlsplit(base_url)
        credentials = parts.username is not None or parts.password is not None
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        credentials = usable = False
    else:
        credentials = credentials or bool(parts.query or parts.fragment)
    if credentials:
        raise ValueError(
            "judge.base_url must be an address without user, password and query; keys come from "
            "the environment variable that judge.key_variable names"
        )
    if not usable:
        raise ValueError(
            "judge.base_url must be an address such as http://127.0.0.1:8000/v1, got "
            f"{re.sub(r'//.*@', '//***@', base_url)!r}"
        )
    if base_url.rstrip("/").endswith("/completions"):
        raise ValueError(
            f"judge.base_url must end before /chat/completions, as in .../v1, got {base_url!r}"
        )
