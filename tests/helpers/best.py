"""The highest scores by a plain sort, key tokens first."""

from mustdrop.key_tokens.cls_attention import ClsAttention

KEY = ClsAttention("ratio", ratio=0.1)  # 4 of 36


def best(score, keep: int, first=()) -> list[int]:
    """Places of the highest scores, ``first`` above all, the earlier one of equals."""
    ranked = sorted(range(len(score)), key=lambda at: (at not in first, -score[at], at))
    return sorted(ranked[: max(keep, len(first))])
