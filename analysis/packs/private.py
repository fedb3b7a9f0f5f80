"""Replaces what is private in the texts of a record: secrets, absolute paths, user names.

Knows nothing about runs.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from getpass import getuser
from pathlib import Path
from typing import Any

SECRET, HOME, PATH, USER = "<secret>", "<home>", "<path>", "<user>"
# Names of settings and of environment variables whose values are secrets.
SECRET_NAME = re.compile(r"(?:^|_|-)(?:key|token|secret|password|passwd|credentials?)$", re.I)
LEAST_SECRET = 8  # characters; shorter values of such variables are switches such as "true"
# Tokens of well-known services, and user and password in an address.
SECRET_TEXT = re.compile(
    r"\bhf_\w{16,}|\bsk-[\w-]{16,}|\bgh[a-z]_\w{16,}|\bAKIA[0-9A-Z]{16}\b"
    r"|(?<=://)[^/\s@:]+:[^/\s@]+(?=@)"
)
PART = r"[^\s'\"\\/,;:()<>]"
# An absolute path of two parts or more, in a longer text; "/no_think" and "and/or" are none.
ABSOLUTE = re.compile(
    rf"(?<![\w.~/\\:<>-])(?:file:/+(?:{PART}+/)*|(?:~\w*|[A-Za-z]:|{HOME})[\\/](?:{PART}+[\\/])*"
    rf"|\\\\(?:{PART}+\\)+|/(?:{PART}+/)+)({PART}*)"
)
# A text that is a path as a whole, whose parts may have spaces.
WHOLE = re.compile(rf"(?:file:/|(?:~\w*|[A-Za-z]:|{HOME})[\\/]|\\\\|/[^/\n]+/)[^\n]*")
SEPARATOR = re.compile(r"[\\/]")
# Texts of a sample that the model read or wrote: no path is guessed in them.
ANSWERED = ("question", "target", "answer")


class PrivateTexts:
    """Private texts of a machine and its user, and how often each kind was replaced.

    Args:
        environment: Environment variables; values of those with a secret's name are replaced.
        home: Home folder of the user; None if there is none.
        user: Login name of the user; None if there is none.

    Attributes:
        replaced: Number of replaced texts of each kind.
    """

    def __init__(self, environment: Mapping[str, str], home: Path | None, user: str | None) -> None:
        values = {
            value
            for name, value in environment.items()
            if SECRET_NAME.search(name) and len(value) >= LEAST_SECRET
        }
        # longer values first: a secret may begin with another
        self._secrets = sorted(values, key=lambda value: (-len(value), value))
        # the root folder is no home
        named = home is not None and len(home.parts) > 1
        self._home = re.compile(rf"{re.escape(str(home))}(?![\w.-])") if named else None
        self._user = re.compile(rf"(?<=[\\/]){re.escape(user)}(?=[\\/]|$)") if user else None
        self.replaced: Counter[str] = Counter()

    @classmethod
    def of_this_machine(cls) -> "PrivateTexts":
        """Private texts of the process that runs."""
        home = user = None
        with suppress(RuntimeError):  # a container may have no home folder and no name for its user
            home = Path.home()
        with suppress(ImportError, KeyError, OSError):
            user = getuser()
        return cls(os.environ, home, user)

    def config(self, value: Any) -> Any:
        """Settings without private texts and without values that have a secret's name."""
        if isinstance(value, Mapping):
            return {
                name: self._count(SECRET)
                if SECRET_NAME.search(str(name)) and isinstance(entry, str)
                else self.config(entry)
                for name, entry in value.items()
            }
        if isinstance(value, list):
            return [self.config(entry) for entry in value]
        return self.text(value) if isinstance(value, str) else value

    def record(self, value: Any) -> Any:
        """Entries of a record or of a sample without private texts."""
        if isinstance(value, Mapping):
            return {
                name: self.answered(entry) if name in ANSWERED else self.record(entry)
                for name, entry in value.items()
            }
        if isinstance(value, list):
            return [self.record(entry) for entry in value]
        return self.text(value) if isinstance(value, str) else value

    def answered(self, value: Any) -> Any:
        """A question or an answer without secrets and without the home folder."""
        if isinstance(value, list):
            return [self.answered(entry) for entry in value]
        return self._known(value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """A text without private parts; the last part of a path stays."""
        text = self._known(text)
        if WHOLE.fullmatch(text):
            text = f"{self._count(PATH)}/{SEPARATOR.split(text.rstrip('/'))[-1]}"
        text = ABSOLUTE.sub(lambda match: f"{self._count(PATH)}/{match[1]}", text)
        return text if self._user is None else self._user.sub(lambda match: self._count(USER), text)

    def _known(self, text: str) -> str:
        """A text without the known secrets and without the home folder."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, self._count(SECRET))
        text = SECRET_TEXT.sub(lambda match: self._count(SECRET), text)
        return text if self._home is None else self._home.sub(lambda match: self._count(HOME), text)

    def _count(self, kind: str) -> str:
        self.replaced[kind] += 1
        return kind
