"""PocketVQA's test split as a class without arguments, which is what lmms-eval's yaml can name."""

from mustdrop.evaluation.tasks.pocket_vqa import PocketVQA


class CrowdedTest(PocketVQA):
    """Crowded scenes of PocketVQA's test split."""

    def __init__(self) -> None:
        super().__init__("pocket_vqa", "crowded_test")
