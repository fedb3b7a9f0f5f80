"""Rows with the columns of the hub's benchmarks, made up, as parquet files in the hub's layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image
from PIL import Image as Picture


def picture(number: int) -> Picture.Image:
    """A picture of one colour, another one for every number; some are grey."""
    colour = (40 * number % 256, 90, 200)
    return Picture.new("RGB", (48, 32), colour) if number % 3 else Picture.new("L", (32, 48), 9)


# Ten people's answers to four questions: agreed, spelt in two ways, a number, eight against two.
PEOPLE = (
    ("unanswerable",) * 10,
    ("A Box.", "box") * 5,
    ("two",) * 10,
    ("milk",) * 8 + ("tea",) * 2,
)


def gqa(subset: str) -> list[dict[str, Any]]:
    if subset.endswith("_images"):
        return [{"id": f"n{number}", "image": picture(number)} for number in (1, 0)]
    words = ("no", "left", "a man", "grass")
    return [
        {"id": str(n), "imageId": f"n{n % 2}", "question": f"What is {n}?", "answer": word}
        for n, word in enumerate(words)
    ]


def mmbench(subset: str) -> list[dict[str, Any]]:
    """Two questions; the second also with its options turned round."""
    rows = []
    for index, answer in ((7, "A"), (8, "B"), (1_000_008, "A"), (1_000_007, "C")):
        turned = {"A": "red", "B": "blue"} if index < 1_000_000 else {"A": "blue", "B": "red"}
        rows.append(
            {
                "index": index, "question": "Which colour?", "hint": "nan", "answer": answer,
                **turned, "C": "red one" if index == 1_000_007 else "nan", "D": "nan",
                "category": "color", "source": "s", "L2-category": "l2", "comment": "nan",
                "split": "dev", "image": picture(index % 10),
            }
        )  # fmt: skip
    return rows


def mme(subset: str) -> list[dict[str, Any]]:
    """Two images of perception and one of cognition, two questions each."""
    asked = [("existence", "a.png"), ("count", "b.png"), ("code_reasoning", "c.png")]
    return [
        {
            "question_id": name, "category": category, "answer": answer, "image": picture(number),
            "question": f"Is it {answer}? Please answer yes or no.",
        }
        for number, (category, name) in enumerate(asked)
        for answer in ("Yes", "No")
    ]  # fmt: skip


def vizwiz(subset: str) -> list[dict[str, Any]]:
    return [
        {
            "question_id": f"VizWiz_val_{n}", "question": "what is this?", "answers": list(said),
            "category": "other", "image": picture(n),
        }
        for n, said in enumerate(PEOPLE)
    ]  # fmt: skip


def scienceqa(subset: str) -> list[dict[str, Any]]:
    return [
        {
            "question": "Which?", "choices": ["one", "two", "three"][: 2 + n % 2], "answer": n % 2,
            "hint": "Look." if n % 2 else "", "image": picture(n), "task": "closed choice",
        }
        for n in range(4)
    ]  # fmt: skip


def vqav2(subset: str) -> list[dict[str, Any]]:
    return [
        {
            "question_id": n, "question": "What is it?", "question_type": "what",
            "image": picture(n), "answers": [
                {"answer": word, "answer_confidence": "yes", "answer_id": i}
                for i, word in enumerate(said)
            ],
            "multiple_choice_answer": said[0], "answer_type": "other", "image_id": n,
        }
        for n, said in enumerate(PEOPLE)
    ]  # fmt: skip


def textvqa(subset: str) -> list[dict[str, Any]]:
    return [
        {
            "question_id": n, "question": "what does it say?", "answers": list(said),
            "ocr_tokens": ["STOP", f"W{n}"], "image": picture(n),
        }
        for n, said in enumerate(PEOPLE)
    ]  # fmt: skip


def pope(subset: str) -> list[dict[str, Any]]:
    return [
        {
            "id": str(n), "question_id": str(n), "question": "Is there a dog?", "image": picture(n),
            "answer": answer, "image_source": f"COCO_{n}", "category": "popular",
        }
        for n, answer in enumerate(("yes", "no", "yes", "no"))
    ]  # fmt: skip


ROWS = {
    maker.__name__: maker for maker in (gqa, mmbench, mme, vizwiz, scienceqa, vqav2, textvqa, pope)
}


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A parquet file whose image column says what it is, as the hub's do."""
    features = Dataset.from_list([{k: v for k, v in row.items() if k != "image"} for row in rows])
    told = dict(features.features)
    if "image" in rows[0]:
        told["image"] = Image()
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(list(rows), features=Features(told)).to_parquet(path)


def write_benchmark(name: str, root: Path, subset: str | None, split: str) -> Path:
    """A benchmark's folder, laid out as the hub's; GQA's pictures in their own subset."""
    file = f"{split}-00000-of-00001.parquet"
    subsets = [subset or "data"]
    if name == "gqa":
        subsets.append(subsets[0].removesuffix("_instructions") + "_images")
    for one in subsets:
        write(ROWS[name](one), root / name / one / file)
    return root / name
