"""Questions and answers as tokens of SmolLM2's chat template. Knows no scene.

A question is tokenized word by word, so that the token of every word is known. The tokens are the
same as those of the whole prompt, because the tokenizer never joins two words into one token.
"""

from dataclasses import dataclass
from functools import cache

from transformers import LlavaProcessor

from mustdrop.pocket.evaluation import prompt


@dataclass(frozen=True)
class Tokens:
    """Tokens of one question with its answer, behind the image.

    Attributes:
        ids: Token ids: question, the template's text before the answer, answer, end of the answer.
        question: Index of the last token of each word of the question.
        answer: Index of the last token before each word of the answer.
        start: Index of the last token before the answer.
    """

    ids: tuple[int, ...]
    question: tuple[int, ...]
    answer: tuple[int, ...]
    start: int


class ChatText:
    """Tokenizer of question and answer pairs.

    Args:
        processor: Processor whose chat template and tokenizer are used.

    Attributes:
        opening: Token ids of the prompt before the image.
    """

    def __init__(self, processor: LlavaProcessor):
        tokenizer = processor.tokenizer
        mark = "what"
        before, after = prompt(processor, mark).split(processor.image_token + mark)
        self.opening = tuple(tokenizer(before).input_ids)
        self._between = tuple(tokenizer(after).input_ids)
        self._end: int = tokenizer.eos_token_id
        self._ids = cache(lambda text: tuple(tokenizer(text).input_ids))

    def tokens(self, question: str, answer: str) -> Tokens:
        """Tokenize a question and its answer."""
        ids: list[int] = []
        ends: list[int] = []
        for word in self._words(question):
            ids += self._ids(word)
            ends.append(len(ids) - 1)
        ids += self._between
        start = len(ids) - 1
        befores: list[int] = []
        for word in self._words(answer):
            befores.append(len(ids) - 1)
            ids += self._ids(word)
        return Tokens((*ids, self._end), tuple(ends), tuple(befores), start)

    def word_ids(self, word: str) -> tuple[int, ...]:
        """Tokens of a word inside a sentence."""
        return self._ids(f" {word}")

    @staticmethod
    def _words(text: str) -> list[str]:
        first, *others = text.split()
        return [first, *(f" {word}" for word in others)]
