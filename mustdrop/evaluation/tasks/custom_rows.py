"""Rows of a user's own questions, from a file of JSON lines or parquet. Knows no task.

``docs/own_data.md`` describes the fields.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
from PIL import Image

FIELDS = (
    "image", "video", "question", "answer", "answers", "choices", "type", "id", "meta",
)  # fmt: skip
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def question_file(folder: Path, split: str) -> Path:
    """File of a split's questions.

    Raises:
        ValueError: If there is none, or more than one.
    """
    names = [f"{split}.jsonl", f"{split}.parquet"]
    files = [folder / name for name in names if (folder / name).is_file()]
    if len(files) != 1:
        raise ValueError(
            f"{folder} must hold one of {names[0]} and {names[1]}, "
            f"{'both are there' if files else 'neither is there'}; docs/own_data.md describes them"
        )
    return files[0]


def read_rows(file: Path, media: Path) -> list[dict[str, Any]]:
    """Rows of a file, each with its answers as a list of texts.

    Args:
        file: File of questions.
        media: Folder where paths of images and videos start.

    Raises:
        ValueError: If a row is not as described; the message names its line or row.
    """
    rows = [_checked(where, row, media) for where, row in _raw(file)]
    if not rows:
        raise ValueError(f"{file} has no rows")
    return rows


def opened(image: str | bytes) -> Image.Image:
    """An image of a row, from its path or its bytes."""
    return Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)


def _raw(file: Path) -> Iterator[tuple[str, Any]]:
    """Each row of a file with the words that name it."""
    if file.suffix == ".parquet":
        try:
            rows = pyarrow.parquet.read_table(file).to_pylist()
        except (OSError, ValueError) as error:
            raise ValueError(f"{file} must be a parquet file, got {error}") from error
        for number, row in enumerate(rows):
            # a column that a row does not use is null there
            yield f"{file}, row {number}", {k: v for k, v in row.items() if v is not None}
        return
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be text in UTF-8: {error}") from error
    for number, line in enumerate(lines, start=1):
        where = f"{file}, line {number}"
        if not line.strip():
            continue
        try:
            yield where, json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where} must be JSON, got {error}") from error


def _checked(where: str, row: Any, media: Path) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{where} must be an object with fields, got {type(row).__name__}")
    if unknown := [name for name in row if name not in FIELDS]:
        raise ValueError(
            f"{where}: fields must be among {', '.join(FIELDS)}, got {unknown[0]} "
            "(meta may hold anything)"
        )
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"{where}: question must be a text, got {question!r}")
    checked: dict[str, Any] = {"question": question, **_shown(where, row, media)}
    checked["answers"] = _answers(where, row)
    if "choices" in row:
        checked["choices"] = _choices(where, row["choices"])
        checked["answers"] = [_letter(where, checked["answers"], checked["choices"])]
    if "type" in row:
        if not isinstance(row["type"], str):
            raise ValueError(f"{where}: type must be a text, got {row['type']!r}")
        checked["type"] = row["type"]
    return checked


def _shown(where: str, row: Mapping[str, Any], media: Path) -> dict[str, Any]:
    """Images of a row as absolute paths or bytes, and its video as an absolute path."""
    given = [name for name in ("image", "video") if name in row]
    if len(given) != 1:
        raise ValueError(
            f"{where} must have one of image and video, got {' and '.join(given) or 'neither'}"
        )
    if given == ["video"]:
        return {"video": _file(where, "video", row["video"], media)}
    images = row["image"] if isinstance(row["image"], list) else [row["image"]]
    if not images:
        raise ValueError(f"{where}: image must be a path or a list of paths, got an empty list")
    return {"images": [_image(where, image, media) for image in images]}


def _image(where: str, image: Any, media: Path) -> str | bytes:
    """Path of an image, or its bytes, which parquet files hold beside a path."""
    if isinstance(image, Mapping) and set(image) <= {"bytes", "path"}:
        content = image.get("bytes")
        image = image.get("path") if content is None else content
    return image if isinstance(image, bytes) else _file(where, "image", image, media)


def _file(where: str, name: str, path: Any, media: Path) -> str:
    if not isinstance(path, str) or not path:
        raise ValueError(f"{where}: {name} must be a path, got {path!r}")
    file = media / path
    if not file.is_file():
        raise ValueError(f"{where}: there is no {name} {path} in {media}")
    return str(file)


def _answers(where: str, row: Mapping[str, Any]) -> list[str]:
    given = [name for name in ("answer", "answers") if name in row]
    if len(given) != 1:
        raise ValueError(
            f"{where} must have one of answer and answers, got {' and '.join(given) or 'neither'}"
        )
    answers = row[given[0]] if given == ["answers"] else [row["answer"]]
    if not isinstance(answers, list) or not answers:
        raise ValueError(f"{where}: answers must be a list of one text or more, got {answers!r}")
    for answer in answers:
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            raise ValueError(f"{where}: an answer must be a text or a number, got {answer!r}")
    return [str(answer) for answer in answers]


def _choices(where: str, choices: Any) -> list[str]:
    fits = isinstance(choices, list) and 2 <= len(choices) <= len(LETTERS)
    if not fits or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"{where}: choices must be a list of 2 to 26 texts, got {choices!r}")
    if len(set(choices)) < len(choices):
        raise ValueError(f"{where}: choices must differ, got {choices!r}")
    return choices


def _letter(where: str, answers: Sequence[str], choices: Sequence[str]) -> str:
    """Letter of the right choice, whose letter or text is the only answer."""
    letters = LETTERS[: len(choices)]
    (answer, *more) = answers
    if not more and answer in choices:
        return letters[choices.index(answer)]
    if not more and len(answer) == 1 and answer in letters:
        return answer
    given = answer if not more else list(answers)
    raise ValueError(
        f"{where}: with choices, answer must be one of them or one of {letters[0]} to "
        f"{letters[-1]}, got {given!r}"
    )
