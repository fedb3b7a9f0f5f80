"""Scores of one answer against the targets of a user's own question. Knows no task."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mustdrop.evaluation.lmms_eval_api import EvalAIAnswerProcessor, anls
from mustdrop.evaluation.tasks.custom_rows import LETTERS
from mustdrop.evaluation.tasks.video_qa import plain_words

EXACT, CONTAINS, ANLS = "exact_match", "contains", "anls"
PEOPLE, CHOICE = "vqa_accuracy", "multiple_choice"
ANSWERERS = 10  # people who answered each question of VQAv2, TextVQA and VizWiz
SCORES = (EXACT, CONTAINS, ANLS, PEOPLE, CHOICE)

# (B), B., B: or "B) a dog"; also "The answer is B."
_LETTER = re.compile(
    r"^\W*(?:(?:the )?(?:correct )?(?:answer|option)(?: is)?:? *)?\(?([A-Z])\b", re.I
)


def scores_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the scores that every row has."""
    names = [EXACT, CONTAINS, ANLS]
    if all(len(row["answers"]) >= ANSWERERS for row in rows):
        names.append(PEOPLE)
    if all("choices" in row for row in rows):
        names.append(CHOICE)
    return names


def score(doc: Mapping[str, Any], answer: str, names: Sequence[str]) -> dict[str, float]:
    """Scores of an answer, each in [0, 1].

    ``exact_match`` compares words without case, punctuation and articles with any of the targets.
    ``contains`` looks for a target's words, in their order, in the answer. ``anls`` is the
    normalised Levenshtein similarity, 0 below one half (Biten et al., arXiv:1905.13648, Sec. 3.3).
    ``vqa_accuracy`` is min(n / 3, 1), where n people gave this answer; it is the mean over all ways
    to leave one person out (Antol et al., arXiv:1505.00468). ``multiple_choice`` reads the chosen
    letter; the other scores of a question with choices compare texts, and a letter counts as the
    text of its choice.

    Args:
        doc: Row of the question.
        answer: The model's answer.
        names: Names of the scores.
    """
    choices, targets = doc.get("choices"), list(doc["answers"])
    letter = None
    if choices is not None:
        letter, right = chosen(answer, choices), targets[0]
        targets = [choices[LETTERS.index(right)]]
        answer = answer if letter is None else choices[LETTERS.index(letter)]
    values = {}
    for name in names:
        if name == CHOICE:
            values[name] = float(letter == doc["answers"][0])
        elif name == PEOPLE:
            values[name] = people_agree(answer, targets)
        elif name == ANLS:
            values[name] = float(anls(targets, [answer])["anls"])
        else:
            compared = contains if name == CONTAINS else equal
            values[name] = float(any(compared(answer, target) for target in targets))
    return values


def equal(answer: str, target: str) -> bool:
    """Whether two texts have the same words; texts without words are compared as they are."""
    words = plain_words(answer), plain_words(target)
    return words[0] == words[1] if any(words) else answer.strip() == target.strip()


def contains(answer: str, target: str) -> bool:
    """Whether the words of the target are in the answer, together and in order."""
    given, wanted = plain_words(answer), plain_words(target)
    places = range(len(given) - len(wanted) + 1)
    return bool(wanted) and any(given[at : at + len(wanted)] == wanted for at in places)


def people_agree(answer: str, people: Sequence[str]) -> float:
    """VQA accuracy of an answer, with lmms-eval's rules for punctuation, numbers and articles."""
    plain = EvalAIAnswerProcessor()
    given, answers = plain(answer), [plain(person) for person in people]
    same = sum(other == given for other in answers)
    return sum(min(1.0, (same - (left == given)) / 3) for left in answers) / len(answers)


def chosen(answer: str, choices: Sequence[str]) -> str | None:
    """Letter that an answer chooses: by its text, or by its letter in front; None: neither."""
    letters = LETTERS[: len(choices)]
    for letter, choice in zip(letters, choices, strict=True):
        if equal(answer, choice):
            return letter
    start = _LETTER.match(answer.strip())
    if start is None:
        return None
    # "A dog" and "I think" begin with a word of one letter
    letter, after = start.group(1), answer.strip()[start.end() :]
    bare = not after.strip(" .:)\n") or after[:1] in (".", ":", ")", "\n", ",")
    return letter.upper() if bare and letter.upper() in letters else None
