"""Finds a model's files in a local folder or on the hub. Does not read them."""

from functools import lru_cache
from pathlib import Path

from mustdrop.provenance.folders import is_hub_name, local_folder

PACKAGED, PACKAGED_SMOL = "packaged", "packaged_smol"
POCKET = Path(__file__).parents[1] / "pocket"
# Folders of the embedded models: PocketLLaVA, and what PocketSmol adds to SmolLM2.
PACKAGED_FOLDERS = {PACKAGED: POCKET / "checkpoint", PACKAGED_SMOL: POCKET / "checkpoint_smol"}
# File patterns; without those of a second copy of the weights.
WANTED = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors")


def checkpoint_folder(pretrained: str, revision: str | None, fetch: bool = True) -> Path:
    """Folder with the files of a checkpoint, which is downloaded if necessary.

    All files are requested at once: loading by name requests file after file, and without a
    network it retries each for half a minute.

    Args:
        pretrained: Folder or hub name.
        revision: Revision on the hub; None for the newest.
        fetch: Whether to use the network; if not, only the hub's local cache is searched.

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
    """Files of a folder that decide an answer: settings, templates, vocabulary, weights."""
    paths = {path for pattern in WANTED for path in folder.glob(pattern)}
    paths |= set((folder / "additional_chat_templates").glob("*.jinja"))
    if not any(path.suffix == ".safetensors" for path in paths):
        paths |= set(folder.glob("*.bin"))  # transformers reads these if there is nothing else
    return sorted(path for path in paths if path.is_file())


@lru_cache
def _fetched(name: str, revision: str | None, fetch: bool) -> Path:
    """Download once per process, so that a process never sees two states of a checkpoint."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=list(WANTED), local_files_only=not fetch
        )
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0].removeprefix("Got: ")
        raise FileNotFoundError(
            f"model.pretrained: {name} cannot be downloaded from the hub ({reason}). Download it "
            f"where there is a network (hf download {name}), or name a folder that holds it: "
            "model.pretrained=/path/to/folder"
        ) from error
    return Path(folder)
