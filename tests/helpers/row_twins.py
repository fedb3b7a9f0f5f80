"""Twins of the image benchmarks: made-up rows in the real layout, with the oddities of real ones.

Columns and types are those of the data sets' cards on the hub (lmms-lab/<name>, README.md) and of
lmms-eval's tasks. ``standins.py`` has shorter rows, for scores worked out by hand.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value
from odd_pictures import odd_picture
from standins import PEOPLE

Rows = list[dict[str, Any]]
COUNT = 56  # rows of a twin; MMBench's has a few more
TEXT = Value("string")
QUESTIONS = (
    "what is this?", "Is the man,who wears a hat, to the left?\n", "  What time is it ?",
    "Qu’est-ce que c’est – “OPEN”?", "Line one.\nLine two?", "what does the NYPD sign say?", "",
    "Is it 3:30 or 4:00 o'clock, 50% or $5?",
)  # fmt: skip


def question(number: int) -> str:
    return QUESTIONS[number % len(QUESTIONS)]


def people(number: int) -> list[str]:
    """Ten answers; some questions have no majority, some empty or very long answers."""
    odd = (
        ("unanswerable",) * 6 + ("unsuitable image",) * 4,
        tuple(str(person) for person in range(10)),
        ("",) * 10,
        ("yes",) * 5 + ("Yes.", "YES", "yes ", "yeah", "no"),
        ("don't walk",) * 9 + ("a sign with the words don't walk\n and a hand",),
        ("1,000", "1000", "one thousand") * 3 + ("$1000",),
    )
    known = (*PEOPLE, *odd)
    return list(known[number % len(known)])


def gqa(subset: str, split: str) -> tuple[Rows, Features]:
    """Several questions to an image, whose subset has another order; the test has no answers."""
    if subset.endswith("_images"):
        features = Features({"id": TEXT, "image": Image()})
        images = [f"n{161313 + number}" for number in range(14)]
        order = images[::-1]
        return [{"id": name, "image": odd_picture(int(name[1:]))} for name in order], features
    answers = ("no", "left", "tennis racket", "to the right of the man", "t-shirt", "brown")
    features = Features({
        "id": TEXT, "imageId": TEXT, "question": TEXT, "isBalanced": Value("bool"),
    })  # fmt: skip
    rows: Rows = [
        {
            "id": f"{201307251 + 7 * number:09}", "imageId": f"n{161313 + number % 14}",
            "question": question(number), "isBalanced": True,
        }
        for number in range(COUNT)
    ]  # fmt: skip
    if split == "test":
        return rows, features
    features |= {
        "answer": TEXT, "fullAnswer": TEXT, "groups": {"global": TEXT, "local": TEXT},
        "semantic": List({
            "operation": TEXT, "argument": TEXT, "dependencies": List(Value("int32")),
        }),
        "semanticStr": TEXT,
    }  # fmt: skip
    steps = [{"operation": "select", "argument": "man (1)", "dependencies": []}]
    for number, row in enumerate(rows):
        row |= {
            "answer": answers[number % len(answers)], "fullAnswer": "No, it is not.",
            "groups": {"global": None if number % 2 else "color", "local": "06-man"},
            "semantic": steps, "semanticStr": "select: man (1)",
        }  # fmt: skip
    return rows, Features(features)


def mmbench(subset: str, split: str) -> tuple[Rows, Features]:
    """Two to four options, missing ones as ``nan``; one row for each order of the options.

    ``index`` is a text, as on the card of the English subset; the test split has no answers.
    """
    columns = (
        "index", "question", "hint", "answer", "A", "B", "C", "D", "category", "source",
        "L2-category", "comment", "split",
    )  # fmt: skip
    texts = (
        ("banana", "apple", "pear", "plum"), ("None", "one", "two", "three"), ("yes", "no"),
        ("Figure A.", "Figure B."), ("2", "1", "0"), ("a dog, black", "A dog; white", "nandu"),
    )  # fmt: skip
    hints = ("nan", "Look at the picture.\nThen answer.", "", "nan")
    originals, turned = [], []
    for number in range(20):
        options = texts[number % len(texts)]
        for order in range(len(options)):
            shown = options[order:] + options[:order]
            filled = dict(zip("ABCD", [*shown, "nan", "nan"][:4], strict=True))
            right = "ABCD"[shown.index(options[number % len(options)])]
            row = {
                "index": str(1_000_000 * order + 241 + number), "question": question(number),
                "hint": hints[number % len(hints)], "answer": "nan" if split == "test" else right,
                **filled, "category": ("color", "ocr")[number % 2], "source": "scienceqa",
                "L2-category": "finegrained_perception", "comment": "nan", "split": split,
                "image": odd_picture(number),
            }  # fmt: skip
            (turned if order else originals).append(row)
    return originals + turned, Features({**dict.fromkeys(columns, TEXT), "image": Image()})


def mme(subset: str, split: str) -> tuple[Rows, Features]:
    """Two images of each category; file names recur in other categories."""
    categories = (
        "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark",
        "artwork", "OCR", "commonsense_reasoning", "numerical_calculation", "text_translation",
        "code_reasoning",
    )  # fmt: skip
    rows = [
        {
            "question_id": f"{category}/{name}" if category == "artwork" else name,
            "image": odd_picture(2 * place + second), "category": category, "answer": answer,
            "question": f"{question(place)}{' ' * second} Please answer yes or no.",
        }
        for place, category in enumerate(categories)
        for second, name in enumerate(("0001.png", "000000006040.jpg"))
        for answer in ("Yes", "No")
    ]  # fmt: skip
    texts = dict.fromkeys(("question_id", "question", "answer", "category"), TEXT)
    return rows, Features({**texts, "image": Image()})


def pope(subset: str, split: str) -> tuple[Rows, Features]:
    """Three categories on the same images; ``question_id`` restarts in each."""
    rows = [
        {
            "id": str(19 * place + number), "question_id": str(number + 1),
            "question": "Is there a dining table in the image?" if number % 2 else question(number),
            "answer": ("yes", "no")[number % 2], "image_source": f"COCO_val2014_{number:012}",
            "image": odd_picture(number), "category": category,
        }
        for place, category in enumerate(("adversarial", "popular", "random"))
        for number in range(19)
    ]  # fmt: skip
    columns = ("id", "question_id", "question", "answer", "image_source", "category")
    return rows, Features({**dict.fromkeys(columns, TEXT), "image": Image()})


def scienceqa(subset: str, split: str) -> tuple[Rows, Features]:
    """Two to five choices, some of one letter; hints empty or of several lines; no id."""
    choices = (
        ["Ashland", "Boston"], ["B", "A", "C"], ["smooth", "a. rough", "hard", "(B)", "None"],
        ["The strength is the same in both pairs.", "stronger in Pair 1.", "Pair 2", ""],
    )  # fmt: skip
    rows = [
        {
            "image": odd_picture(number), "question": question(number),
            "choices": choices[number % 4], "answer": number % len(choices[number % 4]),
            "hint": ("", "Two magnets are placed as shown.\n\nHint: they attract.")[number % 2],
            "task": "closed choice", "grade": "grade2", "subject": "social science",
            "topic": "geography", "category": "Geography", "skill": "Read a map",
            "lecture": "", "solution": "",
        }
        for number in range(COUNT)
    ]  # fmt: skip
    texts = (
        "question", "hint", "task", "grade", "subject", "topic", "category", "skill", "lecture",
        "solution",
    )  # fmt: skip
    features = {**dict.fromkeys(texts, TEXT), "choices": List(TEXT), "answer": Value("int8")}
    return rows, Features({**features, "image": Image()})


def textvqa(subset: str, split: str) -> tuple[Rows, Features]:
    """Words of an OCR engine, at times none; ten empty answers in the test."""
    words = ([], ["STOP"], ["a", ",", "b\n", "“NYPD”", "Question:"], ["x"] * 60)
    rows = [
        {
            "image_id": f"{number // 2:016x}", "question_id": 34602 + number,
            "question": question(number), "question_tokens": question(number).split(),
            "image": odd_picture(number // 2), "image_width": 1024, "image_height": 683,
            "flickr_original_url": "https://example.com/o.jpg",
            "answers": [""] * 10 if split == "test" else people(number),
            "image_classes": ["Sign"], "set_name": split, "ocr_tokens": words[number % 4],
        }
        for number in range(COUNT)
    ]  # fmt: skip
    texts = dict.fromkeys(("image_id", "question", "flickr_original_url", "set_name"), TEXT)
    numbers = dict.fromkeys(("question_id", "image_width", "image_height"), Value("int32"))
    lists = dict.fromkeys(("question_tokens", "answers", "image_classes", "ocr_tokens"), List(TEXT))
    return rows, Features({**texts, **numbers, **lists, "image": Image()})


def vizwiz(subset: str, split: str) -> tuple[Rows, Features]:
    """Photographs, some turned by their EXIF data; the test has no answers."""
    kinds = ("other", "unanswerable", "yes/no", "number")
    rows = [
        {
            "question_id": f"VizWiz_{split}_{number:08}", "image": odd_picture(number),
            "question": question(number), "answers": None if split == "test" else people(number),
            "category": None if split == "test" else kinds[number % 4],
        }
        for number in range(COUNT)
    ]  # fmt: skip
    texts = dict.fromkeys(("question_id", "question", "category"), TEXT)
    return rows, Features({**texts, "answers": List(TEXT), "image": Image()})


def vqav2(subset: str, split: str) -> tuple[Rows, Features]:
    """Ten answers with their confidence; none in the test."""
    sure = ("yes", "maybe", "no")
    rows = [
        {
            "question_type": "what is the", "image_id": number // 3, "answer_type": "other",
            "multiple_choice_answer": None if split == "test" else people(number)[0],
            "answers": None if split == "test" else [
                {"answer": text, "answer_confidence": sure[i % 3], "answer_id": i + 1}
                for i, text in enumerate(people(number))
            ],
            "question_id": 262148000 + number, "question": question(number),
            "image": odd_picture(number // 3),
        }
        for number in range(COUNT)
    ]  # fmt: skip
    texts = ("question_type", "multiple_choice_answer", "answer_type", "question")
    answer = {"answer": TEXT, "answer_confidence": TEXT, "answer_id": Value("int64")}
    numbers = dict.fromkeys(("image_id", "question_id"), Value("int64"))
    features = {**dict.fromkeys(texts, TEXT), **numbers, "answers": List(answer), "image": Image()}
    return rows, Features(features)


TWINS: dict[str, Callable[[str, str], tuple[Rows, Features]]] = {
    maker.__name__: maker for maker in (gqa, mmbench, mme, pope, scienceqa, textvqa, vizwiz, vqav2)
}


def save(rows: Rows, features: Features, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=features).to_parquet(path)


def write_twin(name: str, root: Path, subset: str | None, split: str) -> Rows:
    """Write the twin of one split in the hub's layout of files; returns its rows."""
    parts = [subset or "data"]
    if name == "gqa":
        parts.insert(0, parts[0].removesuffix("_instructions") + "_images")
    for part in parts:
        rows, features = TWINS[name](part, split)
        save(rows, features, root / part / f"{split}-00000-of-00001.parquet")
    return rows
