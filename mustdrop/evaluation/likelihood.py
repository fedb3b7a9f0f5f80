"""lmms-eval's requests for the likelihood of given answers: multiple choice. Knows no files.

lmms-eval's own models return the mean negative log-likelihood of an answer's tokens, and its
multiple-choice scoring takes the least one. So do these functions. The tokens are those of the
answer alone, without an end token. All answers of a document share one prefill.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from mustdrop.dropper import TokenDropper
from mustdrop.engine.finite import NotFinite
from mustdrop.evaluation.answers import sample_counts
from mustdrop.evaluation.chat import document_name, naming, pictures, read_document
from mustdrop.evaluation.frame_cache import VideoReader
from mustdrop.evaluation.lmms_eval_api import ChatMessages, GenerationResult, Instance
from mustdrop.evaluation.model_inputs import prompt_inputs, prompt_text
from mustdrop.ledger import TokenLedger
from mustdrop.scoring import ContinuationScore, loglikelihood


@dataclass(frozen=True, eq=False)
class ChoiceQuestion:
    """One prompt and its possible answers.

    Attributes:
        name: Name of the document in messages.
        doc: Fields of the document.
        chat: Conversation with the images of the document.
        answers: Text of each answer, as it follows the prompt.
        instances: lmms-eval's instance of each answer.
    """

    name: str
    doc: Mapping[str, Any]
    chat: ChatMessages
    answers: list[str] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)


def choice_questions(
    requests: Sequence[Instance], datasets: Mapping[str, Any], videos: VideoReader | None = None
) -> list[ChoiceQuestion]:
    """Questions of some instances; answers to the same text and document share a question.

    Args:
        requests: Instances of type ``loglikelihood``.
        datasets: Task -> split -> documents.
        videos: Reader of videos; None: they are unsupported content.

    Raises:
        ValueError: If an instance has no document, as for mutual information.
        DocumentError: If a document cannot be read.
    """
    questions: dict[tuple, ChoiceQuestion] = {}
    for instance in requests:
        if len(instance.arguments) != 6:
            raise ValueError(
                "likelihoods without a document are not supported; remove the metric "
                "acc_mutual_info from the task"
            )
        text, answer, to_visual, doc_id, task, split = instance.arguments
        key = (task, split, doc_id, text)
        if key not in questions:
            messages = _user_turn(text, to_visual)
            doc, chat = read_document(task, datasets[task][split], doc_id, messages, videos)
            questions[key] = ChoiceQuestion(document_name(task, doc_id), doc, chat)
        question = questions[key]
        question.answers.append(answer if isinstance(answer, str) else answer(question.doc))
        question.instances.append(instance)
    return list(questions.values())


def _user_turn(text: str, to_visual: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Function from a document to messages: one turn with its images and a text."""

    def messages(doc: Any) -> list[dict[str, Any]]:
        images = [{"type": "image", "url": image} for image in to_visual(doc) or []]
        return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]

    return messages


def losses(
    requests: Sequence[Instance],
    datasets: Mapping[str, Any],
    model: PreTrainedModel,
    processor: Any,
    dropper: TokenDropper,
    batch_size: int,
    measure: Callable[[TokenLedger], Mapping[str, Any]],
) -> list[GenerationResult]:
    """Results in the order of the requests, in the form of lmms-eval's own models.

    Args:
        requests: Instances of type ``loglikelihood``.
        datasets: Task -> split -> documents.
        model: Model without an attached dropper.
        processor: Processor of the model.
        dropper: Method.
        batch_size: Number of prompts per batch.
        measure: Function from a ledger to its counts, for the results.

    Raises:
        ValueError: If an instance has no document, as for mutual information, or if a number in the
            computation is infinite or NaN; names the document.
        DocumentError: If a document cannot be read or prepared.
    """
    results = {}
    questions = choice_questions(requests, datasets, VideoReader.of(processor))
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        for part, ledger, scores in zip(
            batch, *_scored(model, processor, dropper, batch), strict=True
        ):
            measured = measure(ledger)
            for instance, score in zip(part.instances, scores, strict=True):
                value: Any = (-score.mean, score.greedy)  # declared as text; scoring reads a pair
                counts = sample_counts(measured, len(score.logprobs))
                results[id(instance)] = GenerationResult(value, counts)
    return [results[id(instance)] for instance in requests]


def _scored(
    model: PreTrainedModel, processor: Any, dropper: TokenDropper, batch: Sequence[ChoiceQuestion]
) -> tuple[list[TokenLedger], list[list[ContinuationScore]]]:
    """Ledger and scores of the answers, for each question of a batch."""
    names, chats = [part.name for part in batch], [part.chat for part in batch]
    inputs = prompt_inputs(model, processor, chats, names)
    tokens = [answer_tokens(processor, part) for part in batch]
    needs = dropper.vision.annotations if dropper.vision is not None else ()
    marks = [
        {name: part.doc[name] for name in needs} for part in batch for _ in pictures(part.chat)
    ]
    try:
        with dropper.attach(model, marks) as run:
            scores = loglikelihood(model, inputs, tokens)
            run.require_finite()
    except NotFinite as error:
        raise ValueError(f"{names[error.prompt]}: {error.fault}") from error
    return run.ledgers, scores


def answer_tokens(processor: Any, question: ChoiceQuestion) -> list[list[int]]:
    """Tokens of each answer of a question, as they follow its prompt.

    Raises:
        DocumentError: If an answer adds no token, or changes how the prompt is split into tokens.
    """
    tokenizer = processor.tokenizer
    with naming(question.name):
        text = prompt_text(processor, question.chat)
        prompt = tokenizer(text)["input_ids"]
        answers = []
        for answer in question.answers:
            whole = tokenizer(text + answer)["input_ids"]
            if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
                raise ValueError(
                    f"the answer {answer!r} must add tokens to the prompt and change none of it"
                )
            answers.append(whole[len(prompt) :])
        return answers
