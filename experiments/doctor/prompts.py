"""Checks of a prompt: what the chat template writes, and how the tokenizer reads it."""

import re
from collections.abc import Mapping
from typing import Any

from experiments.doctor.findings import Finding
from mustdrop.evaluation.chat import question
from mustdrop.evaluation.lmms_eval_api import ChatMessages
from mustdrop.evaluation.model_inputs import prompt_text

# What chat templates write around turns; each is one token of the tokenizer that belongs to it.
MARKERS = re.compile(r"<\|[^|<>\s]+\|>|<(?:start|end)_of_\w+>|\[/?INST\]|</?s>")
SHOWN = 600  # characters of a prompt on the page


def template(processor: Any, chat: ChatMessages, inputs: Mapping[str, Any]) -> Finding:
    """The prompt as text, and faults of the template for this tokenizer."""
    text, tokenizer = prompt_text(processor, chat), processor.tokenizer
    faults = [
        *_markers(text, question(chat), tokenizer),
        *_turns(processor, chat, text),
        *_tokens(inputs, tokenizer),
        *_question(text, question(chat)),
    ]
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."
    facts = {"prompt": text, "faults": faults}
    if not faults:
        return Finding("template", "ok", f"the prompt is {shown!r}", facts)
    listed = "\n".join([*faults, f"the prompt is {shown!r}"])
    return Finding("template", "wrong", listed, facts)


def _markers(text: str, words: str, tokenizer: Any) -> list[str]:
    """Markers that the tokenizer takes apart."""
    faults = []
    for marker in dict.fromkeys(MARKERS.findall(text.replace(words, ""))):
        ids = tokenizer.encode(marker, add_special_tokens=False)
        if len(ids) != 1 or ids == [tokenizer.unk_token_id]:
            faults.append(
                f"the chat template writes {marker}, which is {len(ids)} tokens for this "
                "tokenizer: the template is another model's"
            )
    return faults


def _turns(processor: Any, chat: ChatMessages, text: str) -> list[str]:
    """Whether the prompt ends where the answer begins."""
    closed = processor.apply_chat_template(chat.to_hf_messages(), tokenize=False)
    if closed == text:
        return [
            "the chat template writes nothing that opens the answer (add_generation_prompt has no "
            "effect), so the model continues the user's text"
        ]
    return []


def _tokens(inputs: Mapping[str, Any], tokenizer: Any) -> list[str]:
    """Unknown tokens, and a second start token."""
    ids, faults = inputs["input_ids"][0].tolist(), []
    unknown, start = tokenizer.unk_token_id, tokenizer.bos_token_id
    if unknown is not None and unknown in ids:
        count, of = ids.count(unknown), len(ids)
        faults.append(
            f"{count} of the prompt's {of} tokens are unknown to the tokenizer: the chat template "
            "or the question has characters that it lacks"
        )
    if start is not None and start != tokenizer.eos_token_id and ids.count(start) > 1:
        faults.append(
            f"the prompt has {ids.count(start)} start tokens ({tokenizer.bos_token}): the chat "
            "template writes one, and the tokenizer adds another"
        )
    return faults


def _question(text: str, words: str) -> list[str]:
    """Whether the question is in the prompt once, as it is."""
    times = text.count(words.strip())
    if times == 1 or not words.strip():
        return []
    return [f"the question is in the prompt {times} times, not once"]
