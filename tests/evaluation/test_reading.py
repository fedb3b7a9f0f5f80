"""Documents are read whole and shown as they are; what fails names benchmark and document."""

import ast
import io
import json
import os
import random
import subprocess
import sys
import warnings
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from lmms_eval.api.instance import Instance
from loguru import logger
from models import tiny_llava
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin
from standins import write
from torch.distributed import distributed_c10d

from experiments.run import run
from mustdrop.evaluation import lmms, samples
from mustdrop.evaluation.chat import (
    DocumentError,
    UnreadableDocument,
    naming,
    pictures,
    read_chat,
    read_document,
)
from mustdrop.evaluation.context import beyond_context, context_warning
from mustdrop.evaluation.model_inputs import prompt_inputs
from mustdrop.evaluation.pictures import eight_bits
from mustdrop.evaluation.process import unchanged_process, whole_pictures
from mustdrop.pocket import build_processor
from mustdrop.presets.compose import composed
from mustdrop.runs.folder import read_samples, read_status, run_folder

ROOT = Path(__file__).parents[2]
API = "mustdrop/evaluation/lmms_eval_api.py"
# lmms-eval has imported itself before it asks for these
PLUGIN = "mustdrop/evaluation/plugin.py"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Nothing is left in the user's own cache of data sets."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def gradient(side=64):
    levels = np.zeros((side, side, 3), np.uint8)
    levels[..., 0] = np.arange(side)[None] * 255 // side
    levels[..., 1] = np.arange(side)[:, None] * 255 // side
    levels[: side // 8, :, 2] = 255
    return levels


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


WHOLE = Image.fromarray(gradient())
GREY = gradient()[..., 0]
NO_PICTURE = b"<html>404</html>"


def config(folder, files, *more, questions=None):
    """A run of POPE on rows with these picture files."""
    rows = [
        {
            "id": str(n), "question_id": str(n), "answer": "yes", "category": "popular",
            "question": questions[n] if questions else "Is there a dog?",
            "image_source": f"COCO_{n}", "image": {"bytes": file, "path": f"{n}.png"},
        }
        for n, file in enumerate(files)
    ]  # fmt: skip
    write(rows, folder / "test.parquet")
    return composed(
        "model=pocket", "benchmark=pope", "budget=none", "method=vanilla", "controls=none",
        f"benchmark.data={folder}", "benchmark.task.max_new_tokens=2",
        f"output_root={folder / 'out'}", *more,
    )  # fmt: skip


def shown(folder, files):
    """Each document's picture, as the model is shown it."""
    task = instantiate(config(folder, files).benchmark.task)
    for index in range(len(files)):
        _, chat = read_document("pope", task.eval_docs, index, task.doc_to_messages)
        yield pictures(chat)[0].convert("RGB")


def lmms_eval_imports(tree):
    for node in ast.walk(tree):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if any(name.partition(".")[0] == "lmms_eval" for name in names):
            yield node


def test_lmms_eval_is_imported_in_one_module_where_its_settings_are_put_back():
    places = set()
    for folder in ("mustdrop", "experiments", "hydra_plugins", "analysis"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if "lmms_eval" in text and list(lmms_eval_imports(ast.parse(text))):
                places.add(path.relative_to(ROOT).as_posix())
    assert places == {API, PLUGIN}
    tree = ast.parse((ROOT / API).read_text())
    (guarded,) = [node for node in tree.body if isinstance(node, ast.With)]
    assert ast.unparse(guarded.items[0]) == "unchanged_process()"
    assert list(lmms_eval_imports(tree)) == list(lmms_eval_imports(guarded))


def test_each_setting_that_lmms_eval_changes_is_put_back(monkeypatch, capsys):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)

    def state():
        return (
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters),
            distributed_c10d.default_pg_timeout, random.getstate(),
            np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
        )  # fmt: skip

    def change():
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        Image.MAX_IMAGE_PIXELS = 10**9
        warnings.filterwarnings("ignore")
        distributed_c10d.default_pg_timeout *= 2
        random.seed(9)
        np.random.seed(9)
        torch.manual_seed(9)

    before, handlers = state(), str(logger)
    for error in (None, KeyError):
        try:
            with unchanged_process():
                change()
                changed = state()
                if error:
                    raise error
        except KeyError:
            pass
        assert all(old != new for old, new in zip(before, changed, strict=True))
        assert state() == before and str(logger) == handlers
    with unchanged_process():
        logger.remove()
        logger.add(sys.stdout, level="DEBUG")
    logger.info("a detail")
    logger.warning("a warning")
    told = capsys.readouterr()
    assert not told.out and "a warning" in told.err and "a detail" not in told.err


@pytest.mark.slow
def test_importing_the_adapter_leaves_the_process_as_it_was():
    """In a process of its own, as every import happens once."""
    code = """
import logging, multiprocessing, os, random, signal, socket, sys, warnings
import datasets, numpy, torch, transformers, loguru, pandas
# other libraries' own settings: rich draws a number, these add filters for their warnings
import accelerate, rich.style, scipy.sparse, scipy.special, sympy
from transformers import LlavaForConditionalGeneration
from PIL import Image, ImageFile
from torch.distributed import distributed_c10d
from transformers.utils import logging as theirs

def state():
    backends = torch.backends
    return {
        "truncated": ImageFile.LOAD_TRUNCATED_IMAGES, "pixels": Image.MAX_IMAGE_PIXELS,
        "filters": [str(one) for one in warnings.filters],
        "timeout": distributed_c10d.default_pg_timeout,
        "tf32": (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32),
        "cudnn": (backends.cudnn.benchmark, backends.cudnn.deterministic),
        "precision": torch.get_float32_matmul_precision(), "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(), "grad": torch.is_grad_enabled(),
        "random": random.getstate(), "numpy": numpy.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state().tolist(), "start": multiprocessing.get_start_method(True),
        "root": (logging.root.level, logging.root.handlers, logging.root.manager.disable),
        "transformers": theirs.get_verbosity(), "bars": datasets.are_progress_bars_disabled(),
        "cache": str(datasets.config.HF_DATASETS_CACHE), "socket": socket.getdefaulttimeout(),
        "signals": [str(signal.getsignal(one)) for one in signal.valid_signals()],
        "hooks": (sys.excepthook, sys.getrecursionlimit()), "cwd": os.getcwd(),
        # torch notes its own cache folder there
        "environment": {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"},
    }

before = state()
import mustdrop.evaluation.job
from mustdrop.evaluation.tasks import gqa, mmbench, mme, pocket_pope, pocket_vqa, stock
after = state()
print([name for name in before if before[name] != after[name]])
print(loguru.logger)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    changed, handlers = done.stdout.strip().splitlines()
    assert changed == "[]"
    assert "level=30" in handlers and "<stderr>" in handlers and handlers.count("id=") == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_half_a_picture_is_refused_whatever_the_process_is_set_to(kind, monkeypatch):
    file = encoded(Image.fromarray(gradient(200)), kind)
    docs = [{"image": None}, {"image": file[: len(file) // 2]}]

    def messages(doc):
        picture = Image.open(io.BytesIO(doc["image"])).convert("RGB")
        return [{"role": "user", "content": [{"type": "image", "url": picture}]}]

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UnreadableDocument, match=r"^document 1 of pope: an image cannot be read"):
        read_document("pope", docs, 1, messages)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # another's setting is left alone
    with pytest.raises(KeyError), whole_pictures():
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
        raise KeyError
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_a_path_to_half_a_picture_is_refused_too(tmp_path):
    file = encoded(Image.fromarray(gradient(200)), "JPEG")
    (tmp_path / "half.jpg").write_bytes(file[: len(file) // 2])
    content = [{"type": "image", "url": str(tmp_path / "half.jpg")}]
    named = r"^document 3 of own: the image .*half\.jpg cannot be read: .*truncated"
    with pytest.raises(UnreadableDocument, match=named):
        read_chat("own", 3, [{"role": "user", "content": content}])


def test_an_error_of_several_lines_is_told_in_one_and_named_once():
    with pytest.raises(ValueError) as refused, naming("document 1"), naming("document 2"):
        raise ValueError("one\n  two")
    assert str(refused.value) == "document 2: one two"
    with pytest.raises(ValueError, match=r"^document 1: KeyError: 'image'$"), naming("document 1"):
        raise KeyError("image")
    with pytest.raises(KeyboardInterrupt), naming("document 1"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("bad", [0, 2])
@pytest.mark.parametrize("image", ["own", "wrong"])
def test_a_run_goes_on_without_the_document_that_is_no_picture(bad, image, tmp_path):
    """lmms-eval reads the first one when it makes the task; a control reads those of others."""
    files = [encoded(WHOLE), encoded(Image.new("RGB", (9, 9))), encoded(WHOLE), encoded(WHOLE)]
    files[bad] = NO_PICTURE
    record = run(config(tmp_path, files, f"image={image}"))
    where = run_folder(record["config"])
    assert record["n"] == 3 and record["available"] == 4
    assert [line["doc_id"] for line in read_samples(where)] == [n for n in range(4) if n != bad]
    assert read_status(where)["unreadable"] == record["unreadable"] == [
        {"doc_id": bad, "reason": f"document {bad} of pope: an image cannot be read: cannot "
                                  "identify image file"}
    ]  # fmt: skip


def test_a_run_without_any_picture_fails_with_the_reason(tmp_path):
    with pytest.raises(ValueError, match="no document can be read, the first one because: doc"):
        run(config(tmp_path, [NO_PICTURE] * 2))
    assert not list(tmp_path.rglob("record.json"))


def test_only_an_error_of_pillow_leaves_out_a_document(tmp_path):
    """A wrong column, a wrong size or an unknown white is the same for every document."""
    docs = [{"image": Image.new("F", (9, 9))}]
    with pytest.raises(DocumentError, match="document 0 of pope: an image of mode F") as refused:
        read_document("pope", docs, 0, lambda doc: [])
    assert not isinstance(refused.value, UnreadableDocument)
    with pytest.raises(DocumentError, match="KeyError: 'picture'") as refused:
        read_document("pope", [{}], 0, lambda doc: doc["picture"])
    assert not isinstance(refused.value, UnreadableDocument)
    missing = [{"role": "user", "content": [{"type": "image", "url": str(tmp_path / "no.png")}]}]
    with pytest.raises(UnreadableDocument, match=r"the image .*no\.png cannot be read"):
        read_document("pope", [{}], 0, lambda doc: missing)


def test_the_control_names_the_document_whose_picture_it_would_show(tmp_path):
    task = instantiate(config(tmp_path, [encoded(WHOLE)] * 2).benchmark.task)
    docs = [task.eval_docs[0], {**task.eval_docs[1], "image": "no picture"}]
    asked = ("", task.doc_to_messages, {}, 0, "pope", "test")
    instance = Instance("generate_until", asked, 0, {"task": "pope", "doc_id": 0, "repeats": 1})
    wrong = instantiate(composed("image=wrong").image)
    with pytest.raises(ValueError, match=r"^document 1 of pope: AttributeError"):
        lmms.read_request(instance, {"pope": {"test": docs}}, wrong, build_processor())


def test_sixteen_bits_are_scaled_as_eight_bits_look(tmp_path):
    wide = GREY.astype(np.uint16) * 257
    pgm = b"P5 64 64 65535\n" + wide.astype(">u2").tobytes()
    files = [
        encoded(Image.fromarray(GREY)), encoded(Image.fromarray(wide)),
        encoded(Image.fromarray(wide), "TIFF"), pgm,
    ]  # fmt: skip
    eight, *others = shown(tmp_path, files)
    assert np.array_equal(np.asarray(eight)[..., 0], GREY)
    assert all(other.tobytes() == eight.tobytes() for other in others)
    values = np.array([[0, 128, 129, 32767, 32768, 65407, 65535]], np.uint16)
    nearest = [round(int(value) / 257) for value in values[0]]
    assert np.asarray(eight_bits(Image.fromarray(values))).tolist() == [nearest]
    big = Image.frombytes("I;16B", (7, 1), values.astype(">u2").tobytes())
    assert np.asarray(eight_bits(big)).tolist() == [nearest]


def test_sixteen_bits_are_scaled_in_tasks_of_anyone_and_in_ours(tmp_path):
    """lmms-eval's own tasks convert what they are given, ours what their rows hold."""
    wide = Image.fromarray(GREY.astype(np.uint16) * 257)

    def messages(doc):
        picture = doc["images"][0].convert("RGB")
        return [{"role": "user", "content": [{"type": "image", "url": picture}]}]

    _, theirs = read_document("own", [{"images": [wide]}], 0, messages)
    task = instantiate(config(tmp_path, [encoded(wide)]).benchmark.task)
    ours = read_chat("pope", 0, task.doc_to_messages(task.eval_docs[0]))
    questions = tmp_path / "gqa" / "testdev_balanced_instructions" / "testdev-0.parquet"
    write([{"id": "0", "imageId": "n", "question": "What?", "answer": "no"}], questions)
    joined = questions.parents[1] / "testdev_balanced_images" / "testdev-0.parquet"
    write([{"id": "n", "image": {"bytes": encoded(wide), "path": "n.png"}}], joined)
    data = questions.parents[1]
    gqa = instantiate(composed("benchmark=gqa", f"benchmark.data={data}").benchmark.task)
    third = read_chat("gqa", 0, gqa.doc_to_messages(gqa.eval_docs[0]))
    for one in (theirs, ours, third):
        assert np.array_equal(np.asarray(pictures(one)[0])[..., 0], GREY)


def test_a_picture_without_a_range_of_brightness_is_refused(tmp_path):
    floats = Image.fromarray(GREY.astype(np.float32) / 255)
    whole = Image.fromarray(GREY.astype(np.int32) * 1000)
    from_white = TiffImagePlugin.ImageFileDirectory_v2()
    from_white[262] = 0
    inverse = encoded(Image.fromarray(GREY.astype(np.uint16)), "TIFF", tiffinfo=from_white)
    for file, words in (
        (encoded(floats, "TIFF"), r"mode F \(floats\)"),
        (encoded(whole, "TIFF"), r"mode I \(32-bit integers\)"),
        (inverse, "photometric interpretation 0"),
    ):
        with pytest.raises(ValueError, match=f"^document 1 of pope: .*{words}"):
            list(shown(tmp_path, [encoded(WHOLE), file]))


def test_odd_pictures_are_shown_as_a_viewer_shows_them(tmp_path):
    """Alpha, palettes, CMYK, animations, EXIF, one pixel, extreme shapes; as LLaVA's authors do."""
    turned = Image.Exif()
    turned[0x0112] = 6
    red, blue = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))
    clear = WHOLE.convert("P", palette=Image.Palette.ADAPTIVE)
    files = [
        *(encoded(Image.new("RGB", size, (200, 30, 60)))
          for size in ((1, 1), (1, 60), (60, 1), (3, 90))),
        *(encoded(WHOLE.convert(mode)) for mode in ("L", "LA", "1", "RGBA")),
        encoded(clear), encoded(clear, transparency=3), encoded(WHOLE.convert("CMYK"), "JPEG"),
        encoded(WHOLE.resize((80, 40)), "JPEG", exif=turned),
        encoded(red, "GIF", save_all=True, append_images=[blue]), encoded(WHOLE, "WEBP"),
    ]  # fmt: skip
    processor = build_processor()
    for index, (file, picture) in enumerate(zip(files, shown(tmp_path, files), strict=True)):
        viewed = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
        assert (picture.size, picture.tobytes()) == (viewed.size, viewed.tobytes()), index
        pixels = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, 192, 192)


def test_more_pixels_than_pillow_takes_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"^document 1 of pope: DecompressionBombError"):
        list(shown(tmp_path, [encoded(Image.new("RGB", (3, 3))), encoded(WHOLE)]))


def chat(text, picture=WHOLE):
    content = [{"type": "image", "url": picture}, {"type": "text", "text": text}]
    return read_chat("pope", 0, [{"role": "user", "content": content}])


def test_what_fails_while_a_batch_is_prepared_names_the_document():
    """In the template and in the processor; here the one that asks for two pictures."""
    processor = build_processor()
    model = tiny_llava()
    names = [f"document {index} of pope" for index in (4, 7, 9)]
    chats = [chat("a dog ?"), chat("a <image> dog ?"), chat("a cat ?")]
    with pytest.raises(ValueError, match=r"^document 7 of pope: "):
        prompt_inputs(model, processor, chats, names)
    processor.chat_template = (
        "{% if messages[0]['content'][1]['text'] == 'a cat ?' %}{{ raise_exception('none') }}"
        "{% endif %}<image> word"
    )
    with pytest.raises(ValueError, match=r"^document 9 of pope: TemplateError: none"):
        prompt_inputs(model, processor, [chats[0], chats[0], chats[2]], names)


def test_what_fails_while_an_answer_is_scored_names_the_document(tmp_path, monkeypatch):
    def scores(task, instance, doc, text):
        return {"pope_accuracy": 1.0 / (instance.arguments[3] - 1)}

    monkeypatch.setattr(samples, "scores", scores)
    with pytest.raises(ValueError, match=r"^document 1 of pope: ZeroDivisionError"):
        run(config(tmp_path, [encoded(WHOLE)] * 3))


ODD = [
    "🐕🦺👩‍👩‍👧‍👦 ?", "هل يوجد كلب؟ \u202e abc", "a\u2028b\u0085c\u2029d",
    "Is </s> a <s> dog </s>?",
    "</script><script>alert(1)</script><!--", "{{ 7*7 }} {% raw %}", "a\x00b", "", "   ",
    "100% & _ # $ ^ ~ \\ { }", "dog " * 450,
]  # fmt: skip


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The folder of a run that was asked odd questions, the last one beyond the model's context."""
    folder = tmp_path_factory.mktemp("odd")
    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
    with redirect_stderr(StringIO()) as told:
        files = [encoded(WHOLE)] * len(ODD)
        record = run(config(folder, files, "batch_size=4", questions=ODD))
    patch.undo()
    (path,) = folder.rglob("record.json")
    return record, path.parent, told.getvalue()


def test_odd_questions_are_asked_and_kept_as_they_are(odd):
    record, folder, _ = odd
    kept = [line["question"] for line in read_samples(folder)]
    assert record["n"] == len(ODD) == len(kept)
    assert all(asked.strip() in told for asked, told in zip(ODD, kept, strict=True))


def test_a_prompt_is_beyond_the_context_with_its_answer_counted():
    def asked(*lengths):
        return [
            {"doc_id": doc, "prompt_tokens": length, "new_tokens": 4}
            for doc, length in enumerate(lengths)
        ]

    none = {"positions": 10, "beyond": 0, "first": []}
    assert beyond_context(asked(1, 5, 6), 10) == none
    assert beyond_context(asked(7, 6, 8), 10) == {"positions": 10, "beyond": 2, "first": [0, 2]}
    many = beyond_context(reversed(asked(*[9] * 7)), 10)
    assert many == {"positions": 10, "beyond": 7, "first": [0, 1, 2, 3, 4]}
    assert "7 prompts of pope" in context_warning(many, "pope")
    assert "(documents 0, 1, 2, 3, 4, ...)" in context_warning(many, "pope")
    assert beyond_context(asked(10**6), None)["beyond"] == 0


def test_prompts_beyond_the_models_context_are_counted_and_reported(odd):
    record, folder, told = odd
    assert record["context"] == {"positions": 1024, "beyond": 1, "first": [10]}
    assert json.loads((folder / "record.json").read_text())["context"] == record["context"]
    warning = "warning: 1 prompts of pope are longer, with their answers, than the model's context"
    assert f"{warning} of 1024 positions (documents 10)" in told
    assert warning in (folder / "run.log").read_text()
