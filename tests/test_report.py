import base64
import io
import json
import re
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from results import draws, floor, write
from traced_runs import bare, ledger, life, picture, rewrite, stages, traced_root

from analysis.records.patches import patch_fates
from analysis.report.__main__ import main
from analysis.report.gathering import gather
from analysis.report.packing import PLANES, packed
from analysis.report.page import page
from analysis.report.tracing import Traces, light
from analysis.tables.sheets import sheet
from analysis.tables.summary import summary
from mustdrop.harness.record import trace_path
from mustdrop.harness.traces import Trace

SCORES = (draws(0, 12, 0.9), draws(1, 12), draws(2, 12))
NASTY = "</script><script>alert(1)</script> <!-- \u2028 & \" ' ${x} {{ y }} <img src=x onerror=z>"


@pytest.fixture
def root(tmp_path):
    return traced_root(tmp_path, SCORES)


class Read(HTMLParser):
    """What a browser would make of a page: its elements with their attributes and texts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._open = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = dict(attrs).get("id", tag)

    def handle_data(self, data):
        self.text[self._open] = self.text.get(self._open, "") + data


def inflated(text):
    return zlib.decompress(base64.b64decode(text))


def told(text):
    return json.loads(inflated(Read(text).text["told"]))


def planes(gathered, image):
    """The planes of one image, by name: read by offsets, as the page does."""
    size = image["grid"][0] * image["grid"][1]
    out = {}
    for place, name in enumerate(PLANES):
        start = image["at"] + place * size
        raw = bytes(gathered.traces.fates[start : start + size])
        out[name] = list(struct.unpack(f"{size}B", raw))
    return out


def test_a_page_holds_what_the_runs_say(root):
    found = told(page(gather(root)))
    assert found["samples"]["id"] == [f"vqa:{doc}" for doc in range(12)]
    assert found["samples"]["target"] == [f"t{doc}" for doc in range(12)]
    assert [arm["name"] for arm in found["arms"]] == ["vanilla", "mustdrop t192", "random t192"]
    for arm, scores in zip(found["arms"], SCORES, strict=True):
        assert arm["score"] == list(scores)
        for doc, place in enumerate(arm["answer"]):
            assert found["texts"][place] == (f"t{doc}" if scores[doc] else f"wrong {doc}")
    mustdrop = found["arms"][1]
    assert mustdrop["stages"] == {"vision": "LocalMerge", "prefill": "DualAttention"}
    expected = life(4, 1).ledger
    assert found["profiles"][mustdrop["tokens"][1]] == expected.vision_per_layer()
    assert found["profiles"][mustdrop["resident"][1]] == expected.resident_per_layer()
    assert [sorted(arm["traces"]) for arm in found["arms"]] == [["0", "1"], ["0", "1"], []]


def test_the_summary_is_the_table_and_sorts_by_its_numbers(root):
    floor(root, "mustdrop", "t16", 74.0)
    frame, shown = summary(root), sheet(summary(root))
    found = told(page(gather(root)))["summary"]
    assert found["heads"] == list(shown.heads)
    assert [row["cells"] for row in found["rows"]] == [list(row) for row in shown.rows]
    assert found["notes"] == list(shown.notes)
    orders = {
        head: [row["order"][place] for row in found["rows"]]
        for place, head in enumerate(found["heads"])
    }
    columns = {
        "exact_match [95 %]": "accuracy", "Δ vanilla [95 %]": "vs_vanilla",
        "executed average": "executed_average", "FLOPs": "flops_ratio", "KV cache": "kv_bytes",
        "resident": "resident", "s per sample": "seconds", "nominal": "nominal",
        "paper average": "paper_average",
    }  # fmt: skip
    for head, name in columns.items():
        values = [None if np.isnan(value) else value for value in frame[name]]
        assert orders[head] == [v if v is None else pytest.approx(v, abs=1e-6) for v in values]
    assert orders["budget"] == [None, 192.0, 192.0, 16.0]
    assert orders["method"] == list(frame["method"])
    # every column but the names is sorted by numbers, or a head was renamed
    for head, values in orders.items():
        numbers = [value for value in values if isinstance(value, float)]
        assert numbers or head == "method", head
    arms = [row["arm"] for row in found["rows"]]
    assert arms[-1] is None and len({*arms}) == 4


def test_fates_are_packed_as_they_are(root):
    gathered = gather(root)
    for arm, made in ((0, bare), (1, life)):
        for doc in (0, 1):
            trace = made(4, doc)
            fates = patch_fates(trace)
            image = gathered.told["arms"][arm]["traces"][doc]["images"][0]
            found = planes(gathered, image)
            assert found["left"] == [left + 2 for left in fates.left]
            assert [code & 127 for code in found["reason"]] == fates.reason.tolist()
            assert [code >= 128 for code in found["reason"]] == fates.key.tolist()
            assert found["resident"] == fates.resident.tolist()
            assert found["word"] == [255 if word < 0 else word for word in fates.word]
            for name in ("share", "largest"):
                for code, value in zip(found[name], getattr(fates, name), strict=True):
                    if np.isnan(value):
                        assert code == 0
                    else:
                        read = 10 ** (((code - 1) / 254 - 1) * 6)
                        assert read == pytest.approx(max(value, 1e-6), rel=0.03)
            groups = {}
            for patch, group in enumerate(found["group"]):
                groups.setdefault(group, []).append(patch)
            groups.pop(0)
            assert list(groups.values()) == ([[0, 1, 4, 5]] if arm else [])
            assert image["sizes"] == ([4] if arm else [])
            assert image["region"] == ([5, 6] if arm else None)


def test_many_groups_are_told_apart():
    side, pairs = 32, [(2 * k, 2 * k + 1) for k in range(512)]
    book = ledger(side, [[pair[-1] for pair in pairs]] * 2, groups=pairs)
    raw, sizes = packed(patch_fates(Trace(book)))
    found = np.frombuffer(raw, dtype=np.uint8).reshape(len(PLANES), -1).astype(int)
    group = found[PLANES.index("group")] + 256 * found[PLANES.index("group_high")]
    assert group.tolist() == [1 + patch // 2 for patch in range(side**2)]
    assert sizes == [2] * 512


def test_groups_are_numbered_as_one_reads_them():
    """Whatever the order in which the encoder hands their tokens on."""
    groups = [(10, 11, 14), (0, 1), (2, 3, 6, 7), *((place,) for place in (4, 5, 8, 9, 12, 13, 15))]
    book = ledger(4, [[group[-1] for group in groups]] * 2, groups=groups)
    raw, sizes = packed(patch_fates(Trace(book)))
    found = np.frombuffer(raw, dtype=np.uint8).reshape(len(PLANES), -1)[PLANES.index("group")]
    assert found.tolist() == [1, 1, 2, 2, 0, 0, 2, 2, 0, 0, 3, 3, 0, 0, 3, 0]
    assert sizes == [2, 4, 3]


def test_a_region_tells_the_grid_of_slots_that_are_no_square(tmp_path):
    (tmp_path / "traces").mkdir()
    for doc, region in enumerate((np.eye(2, 4, dtype=bool), np.eye(3, 4, dtype=bool))):
        book = ledger(4, [range(16)] * 2)
        book.vision[3 + 8 :] = False  # eight slots
        Trace(book, region=region).save(trace_path(tmp_path, doc))
    traces = Traces()
    assert traces.add(tmp_path, 0)["images"][0]["grid"] == (2, 4)
    assert traces.add(tmp_path, 1) is None and traces.gridless == 1


def test_a_picture_is_kept_once_for_all_arms_and_samples(root):
    assert len(gather(root).traces.pictures) == 2
    folder = next(root.rglob("random/**/record.json")).parent
    (folder / "traces").mkdir()
    for doc in range(5):
        trace = bare(4, 0)
        trace.save(trace_path(folder, doc))
    assert len(gather(root).traces.pictures) == 2
    bare(4, 77).save(trace_path(folder, 5))
    gathered = gather(root)
    assert len(gathered.traces.pictures) == 3
    last = gathered.told["arms"][2]["traces"][5]["images"][0]["picture"]
    assert base64.b64decode(gathered.traces.pictures[last]) == picture(77)


def test_heavy_pictures_are_made_light_and_light_ones_are_left():
    assert light(picture(0)) == picture(0)
    noise = np.random.default_rng(0).integers(0, 255, (336, 504, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "WEBP", quality=90)
    made = light(out.getvalue())
    assert len(made) < len(out.getvalue()) / 3
    assert Image.open(io.BytesIO(made)).size == (256, 171)


def test_equal_runs_make_equal_bytes(root):
    assert page(gather(root)) == page(gather(root))


def test_nothing_is_fetched(root):
    text = page(gather(root))
    assert not re.search(r"(?:src|href|url\()\s*=?\s*[\"']?(?:https?:)?//", text)
    links = {
        value for _, attributes in Read(text).tags
        for name, value in attributes.items() if name in ("src", "href", "action", "poster")
    }  # fmt: skip
    assert links == {"data:,", "#main"}
    policy = next(a["content"] for tag, a in Read(text).tags if "http-equiv" in a)
    assert policy == (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'"
    )
    for call in ("fetch(", "XMLHttpRequest", "import(", "WebSocket", "innerHTML", "eval("):
        assert call not in text


def test_no_text_of_a_run_can_break_out(tmp_path):
    root = traced_root(tmp_path, SCORES, asked=lambda doc: f"{doc} {NASTY}")
    for record in root.rglob("record.json"):
        record.write_text(
            record.read_text().replace('"model": "pocket"', f'"model": {json.dumps(NASTY)}')
        )
    text = page(gather(root))
    plain = page(gather(traced_root(tmp_path / "plain", SCORES)))
    names = [tag for tag, _ in Read(text).tags]
    assert names == [tag for tag, _ in Read(plain).tags]
    assert names.count("script") == 4 and "img" not in names
    assert told(text)["samples"]["question"][3] == f"3 {NASTY}"


def test_old_and_bare_runs_need_no_traces(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0, draws(0))
    found = told(page(gather(tmp_path)))
    assert found["arms"][0]["traces"] == {}
    assert dict(found["about"])["Traced"].startswith("nothing: experiments/trace.py")


def test_a_ledger_alone_has_fates_and_no_picture(tmp_path):
    folder = write(tmp_path, "vanilla", "none", 576.0, draws(0))
    (folder / "traces").mkdir()
    ledger(4, [range(16)] * 4).save(trace_path(folder, 3))
    gathered = gather(tmp_path)
    trace = gathered.told["arms"][0]["traces"][3]
    assert trace["images"][0]["picture"] is None and trace["gamma"] is None
    assert planes(gathered, trace["images"][0])["left"] == [4 + 2] * 16
    assert "no picture" in dict(gathered.told["about"])["Traced"]


def test_patches_without_a_grid_are_counted_not_guessed(tmp_path):
    folder = write(tmp_path, "vanilla", "none", 576.0, draws(0))
    (folder / "traces").mkdir()
    book = ledger(4, [range(16)] * 4)
    book.vision[3] = False
    Trace(book).save(trace_path(folder, 3))
    gathered = gather(tmp_path)
    assert gathered.told["arms"][0]["traces"] == {}
    assert "1 left out, since their patches have no grid" in dict(gathered.told["about"])["Traced"]


def test_several_pictures_of_a_prompt_are_several_images():
    book = ledger(4, [range(16), range(8)])
    book.vision[3 + 8 :] = False  # eight slots: two pictures of 2 x 2
    traces = Traces()
    trace = Trace(book, pictures=[picture(0), picture(1)])
    images = [traces._image(trace, number, (2, 2)) for number in (0, 1)]
    assert [image["at"] for image in images] == [0, 4 * len(PLANES)]
    assert [image["picture"] for image in images] == [0, 1]


def test_the_first_samples_alone_and_the_summary_of_all(root):
    found = told(page(gather(root, 5)))
    assert found["samples"]["id"] == [f"vqa:{doc}" for doc in range(5)]
    assert all(len(arm["score"]) == 5 for arm in found["arms"])
    assert dict(found["about"])["Samples"] == "the first 5 of 12"
    assert found["summary"] == told(page(gather(root)))["summary"]
    with pytest.raises(ValueError, match="samples must be 1 or more, got 0"):
        gather(root, 0)


def test_arms_that_share_a_name_have_keys_of_their_own(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0, draws(0))
    write(tmp_path, "random", scores=draws(1), key="k1", seed=1)
    write(tmp_path, "random", scores=draws(2), key="k2", seed=2)
    keys = [arm["key"] for arm in gather(tmp_path).told["arms"]]
    assert keys == ["vanilla-none-k", "random-t192-k1", "random-t192-k2"]
    names = [arm["name"] for arm in gather(tmp_path).told["arms"]]
    assert names == ["vanilla", "random t192, seed=1", "random t192, seed=2"]


def test_runs_that_asked_different_questions_are_refused(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0, draws(0))
    other = write(tmp_path, "fastv", scores=draws(1), experiment="f", key="o")
    rewrite(other, lambda line: {"question": "another one ?"})
    with pytest.raises(ValueError, match="was asked in two ways under the name vqa"):
        gather(tmp_path)


def test_scores_of_what_ran_beside_stand_with_the_arm(tmp_path):
    folder = write(tmp_path, "mustdrop", scores=(1.0, 0.0), config=stages(prefill="DualAttention"))
    arm = {"scores": {"exact_match": 1.0}}
    rewrite(folder, lambda line: {"controls": {"flat_random": [arm] * line["doc_id"]}})
    assert gather(tmp_path).told["arms"][0]["beside"] == {"flat": [None, 1.0]}


def test_the_command_writes_a_page_and_tells_of_it(root, capsys, tmp_path):
    assert main([str(root)]) == 0
    assert (root / "report.html").read_text() == page(gather(root))
    line = capsys.readouterr().out
    assert "12 samples, 3 arms, 4 traces, 2 pictures" in line and "MB" in line
    assert main([str(root), "--out", str(tmp_path / "a.html"), "--samples", "1"]) == 0
    assert len(told((tmp_path / "a.html").read_text())["samples"]["id"]) == 1


def test_what_cannot_be_read_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "no results folder" in capsys.readouterr().err
    floor(tmp_path, "mustdrop", "t16", 74.0)
    assert main([str(tmp_path)]) == 1
    assert "every budget lies below its method's floor" in capsys.readouterr().err


def test_a_thousand_traced_samples_stay_under_fifteen_megabytes(tmp_path, monkeypatch):
    """Fates of 576 patches drawn afresh and pictures as heavy as they come, fifty of each."""
    rng = np.random.default_rng(0)
    sizes = []
    for doc in range(50):
        traces = Traces()
        noise = rng.integers(0, 255, (14, 14, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(noise).resize((336, 336), Image.Resampling.BICUBIC).save(out, "WEBP")
        for arm in range(3):
            trace = life(24, 3 * doc + arm)
            made = Trace(trace.ledger, trace.looks, {}, trace.words, 0.1, 0.1, [out.getvalue()])
            traces._image(made, 0, None)
        assert len(traces.pictures) == 1
        sizes.append(len(zlib.compress(bytes(traces.fates), 9)) * 4 / 3 + len(traces.pictures[0]))
    assert 1000 * np.mean(sizes) < 13e6  # the rest is for questions and answers
