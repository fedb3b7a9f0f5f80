"""Twins of RefCOCO, DocVQA, ChartQA, OCRBench and MMMU: made-up rows in the real layout.

Columns and types are those of the data sets' cards on the hub and of lmms-eval's tasks.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value
from odd_pictures import odd_picture
from row_twins import COUNT, TEXT, Rows, question

KINDS = (  # of OCRBench
    "Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition",
    "Handwriting Recognition", "Digit String Recognition", "Non-Semantic Text Recognition",
    "Scene Text-centric VQA", "Doc-oriented VQA", "Key Information Extraction",
    "Handwritten Mathematical Expression Recognition",
)  # fmt: skip


def refcoco(split: str) -> tuple[Rows, Features]:
    """One to three sentences of a box, some equal; boxes of the whole image, of no area."""
    sentences = (["left dog"], ["man in red", "Man in red ", "guy"], ["the left one’s hat", "x"])
    boxes = ([12.5, 4.0, 20.25, 16.0], [0, 0, 48, 32], [3, 3, 0, 0], [40.5, 20.5, 7.5, 11.5])
    rows = [
        {
            "question_id": str(400000 + number), "image": odd_picture(number // 2),
            "question": "Please carefully observe the area circled in the image.",
            "answer": sentences[number % 3], "segmentation": [1.0, 2.0, 3.5, 4.0, 9.0, 1.5],
            "bbox": boxes[number % 4], "iscrowd": 0, "file_name": f"COCO_train2014_{number}.jpg",
        }
        for number in range(COUNT)
    ]  # fmt: skip
    texts = dict.fromkeys(("question_id", "question", "file_name"), TEXT)
    lists = dict.fromkeys(("segmentation", "bbox"), List(Value("float32")))
    return rows, Features(
        {**texts, **lists, "answer": List(TEXT), "iscrowd": Value("int8"), "image": Image()}
    )


def docvqa(split: str) -> tuple[Rows, Features]:
    """One to several answers, none in the test."""
    answers = (["0.28"], ["University of California", "university of  california"], ["$ 1,500.00"])
    rows = [
        {
            "questionId": str(49153 + number), "question": question(number),
            "question_types": ["handwritten", "form"], "image": odd_picture(number),
            "docId": 14465, "ucsf_document_id": "pybv0228", "ucsf_document_page_no": "81",
            "answers": None if split == "test" else answers[number % 3], "data_split": "val",
        }
        for number in range(COUNT)
    ]  # fmt: skip
    names = ("questionId", "question", "ucsf_document_id", "ucsf_document_page_no", "data_split")
    lists = dict.fromkeys(("question_types", "answers"), List(TEXT))
    return rows, Features(
        {**dict.fromkeys(names, TEXT), **lists, "docId": Value("int64"), "image": Image()}
    )


def chartqa(split: str) -> tuple[Rows, Features]:
    """Numbers, shares, lists and words, first those of people."""
    answers = ("14", "0.57", "Yes", "0", "[Japan, China]", "-3.5", "2019", "Dark blue", "23%")
    rows = [
        {
            "type": "human_test" if number < COUNT // 2 else "augmented_test",
            "question": question(number), "answer": answers[number % len(answers)],
            "image": odd_picture(number),
        }
        for number in range(COUNT)
    ]  # fmt: skip
    return rows, Features({**dict.fromkeys(("type", "question", "answer"), TEXT), "image": Image()})


def ocrbench(split: str) -> tuple[Rows, Features]:
    """All ten kinds; formulas with spaces and line breaks, full-width letters."""
    answers = (["CENTRE"], ["ＡＢＣ１２３"], ["one\ntwo", "12"], ["£ 9.99"])
    rows = [
        {
            "dataset": "HME100k" if number % 10 == 9 else "IIIT5K",
            "question": f" {question(number)} ", "question_type": KINDS[number % 10],
            "answer": [r"\frac { 1 } { X }" "\n+ y"] if number % 10 == 9 else answers[number % 4],
            "image": odd_picture(number),
        }
        for number in range(COUNT + 4)
    ]  # fmt: skip
    texts = dict.fromkeys(("dataset", "question", "question_type"), TEXT)
    return rows, Features({**texts, "answer": List(TEXT), "image": Image()})


def mmmu(split: str) -> tuple[Rows, Features]:
    """One to seven images, in questions and options, named twice or in another order."""
    images = [f"image_{place}" for place in range(1, 8)]
    questions: tuple[tuple[str, str, str, int], ...] = (
        ("What is <image 1>?", "['$6', '$7,000', 'it''s', 'None']", "B", 1),
        ("<image 2> follows <image 1> , why?", "['a', 'b']", "A", 2),
        ("<image 1> Look at <image 1> again.\nWhich?", "['<image 2>', '<image 3>']", "B", 3),
        ("Name it. <image 1>", "[]", "2.5", 1),
        ("Who? <image 1>", "[]", "New York", 1),
        ("All: " + " ".join(f"<image {n}>" for n in range(1, 8)), str(list("vwxyz")), "E", 7),
    )  # fmt: skip
    rows: Rows = []
    for number in range(COUNT):
        text, options, answer, count = questions[number % len(questions)]
        subject = ("Art_Theory", "Math", "Basic_Medical_Science")[number % 3]
        row: dict[str, Any] = dict.fromkeys(images)
        row |= {name: odd_picture(7 * number + i) for i, name in enumerate(images[:count])}
        row |= {
            "id": f"{split}_{subject}_{number + 1}", "question": text, "options": options,
            "explanation": "", "img_type": "['Diagrams']", "topic_difficulty": "Medium",
            "answer": "?" if split == "test" else answer, "subfield": "Geometry",
            "question_type": "open" if options == "[]" else "multiple-choice",
        }  # fmt: skip
        rows.append(row)
    texts = (
        "id", "question", "options", "explanation", "img_type", "answer", "topic_difficulty",
        "question_type", "subfield",
    )  # fmt: skip
    return rows, Features({**dict.fromkeys(texts, TEXT), **dict.fromkeys(images, Image())})


OTHER_TWINS = {maker.__name__: maker for maker in (refcoco, docvqa, chartqa, ocrbench, mmmu)}


def write_other(name: str, root: Path, subset: str | None, split: str) -> Rows:
    """Write the twin of one split in the hub's layout of files; returns its rows."""
    rows, features = OTHER_TWINS[name](split)
    path = root / (subset or "data") / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=features).to_parquet(path)
    return rows
