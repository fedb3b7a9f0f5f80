"""The comment at the top of a preset's yaml file. Knows nothing about what the preset sets."""

import re
from pathlib import Path


def preset_comment(file: Path) -> tuple[str, str]:
    """Comment at the top of a yaml file, in two parts: text, and what follows ``Source:``."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("# "))
    text, _, source = " ".join(lines).partition("Source: ")
    # The source ends with its first sentence; what follows belongs to the text.
    match = re.match(r"(.*?)\.(?: (?=[A-Z])(.*))?$", source)
    source, rest = (match[1], match[2] or "") if match else (source, "")
    rest = rest.partition("Command:")[0]
    return f"{text.strip()} {rest}".strip(), source.strip()
