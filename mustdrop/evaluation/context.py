"""Count prompts that exceed the model's context. Knows nothing about runs and models."""

from collections.abc import Iterable, Mapping
from typing import Any

SHOWN = 5  # number of documents that a record and a warning name


def beyond_context(samples: Iterable[Mapping[str, Any]], positions: int | None) -> dict[str, Any]:
    """Count the samples that need more positions than the model has, their answers included.

    Tokens are counted before dropping, because the first layers see all of them.

    Args:
        samples: Recorded samples.
        positions: Number of positions (``max_position_embeddings``); None if the model sets none.

    Returns:
        ``positions``, the number of samples ``beyond`` them, and the ``first`` documents of these.
    """
    documents = (
        []
        if positions is None
        else sorted(
            sample["doc_id"]
            for sample in samples
            if sample["prompt_tokens"] + sample["new_tokens"] > positions
        )
    )
    return {"positions": positions, "beyond": len(documents), "first": documents[:SHOWN]}


def context_warning(context: Mapping[str, Any], benchmark: str) -> str:
    """The result of :func:`beyond_context` as one sentence."""
    shown = ", ".join(map(str, context["first"]))
    more = ", ..." if context["beyond"] > len(context["first"]) else ""
    return (
        f"warning: {context['beyond']} prompts of {benchmark} are longer, with their answers, than "
        f"the model's context of {context['positions']} positions (documents {shown}{more}); such "
        "answers may be noise"
    )
