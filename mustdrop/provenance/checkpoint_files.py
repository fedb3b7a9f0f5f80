"""Where a model's files are: a folder of the user's, or the hub's. Reads none of them."""

from functools import lru_cache
from pathlib import Path

from mustdrop.provenance.folders import is_hub_name, local_folder

PACKAGED = "packaged"
WANTED = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors")  # no second copy of the weights


def checkpoint_folder(pretrained: str, revision: str | None, fetch: bool = True) -> Path:
    """The folder with the files; those of the hub fetched, or found in its cache.

    All at once: loading by name asks the hub for file after file, and without a network
    retries each for half a minute.

    Args:
        pretrained: A folder, or a hub name.
        revision: Of the hub name; None: the newest.
        fetch: Whether the hub may be asked; if not, its cache alone is looked into.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
    """
    folder = local_folder(pretrained)
    if folder is not None:
        return folder
    if not is_hub_name(pretrained):
        raise FileNotFoundError(f"model.pretrained: there is no folder {pretrained}")
    return _fetched(pretrained, revision, fetch)


def checkpoint_files(folder: Path) -> list[Path]:
    """The files of a folder that decide an answer: settings, templates, vocabulary, weights."""
    found = {path for pattern in WANTED for path in folder.glob(pattern)}
    found |= set((folder / "additional_chat_templates").glob("*.jinja"))
    if not any(path.suffix == ".safetensors" for path in found):
        found |= set(folder.glob("*.bin"))  # what transformers reads where there is nothing else
    return sorted(path for path in found if path.is_file())


@lru_cache
def _fetched(name: str, revision: str | None, fetch: bool) -> Path:
    """One process asks the hub once, so that it never sees two states of a checkpoint."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        found = snapshot_download(
            name, revision=revision, allow_patterns=list(WANTED), local_files_only=not fetch
        )
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0].removeprefix("Got: ")
        raise FileNotFoundError(
            f"model.pretrained: the hub's {name} cannot be had ({reason}): fetch it where there "
            f"is a network (hf download {name}), or give a folder that holds it, "
            "model.pretrained=/path/to/folder"
        ) from error
    return Path(found)
