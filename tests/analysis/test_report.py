import base64
import io
import json
import math
import re
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from results import draws, floor, write
from traced_runs import bare, ledger, life, picture, rewrite, stages, traced_root

from analysis.figures.palette import KNOWN, MARKS, look_of
from analysis.figures.points import Point, points
from analysis.records.cells import load
from analysis.records.left_out import LeftOut
from analysis.records.patches import patch_fates
from analysis.report.__main__ import main
from analysis.report.marks import look, outline
from analysis.report.packing import PLANES, packed
from analysis.report.page import page
from analysis.report.page_data import gather
from analysis.report.plot import plot
from analysis.report.tracing import Traces, light
from analysis.tables.sheets import sheet
from analysis.tables.summary import summary
from mustdrop.runs.folder import trace_path
from mustdrop.runs.trace import Trace

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
    return json.loads(inflated(Read(text).text["data"]))


def planes(gathered, image):
    """The planes of one image, by name: read by offsets, as the page does."""
    size = image["grid"][0] * image["grid"][1]
    out = {}
    for place, name in enumerate(PLANES):
        start = image["start"] + place * size
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


def test_the_title_and_the_first_lines_say_what_was_compared(root, tmp_path):
    gathered = gather(root)
    assert gathered.title == "MustDrop and random on vqa"
    assert gathered.introduction == (
        "3 runs of vanilla, MustDrop, random, at budgets of 192 vision tokens: PocketLLaVA on "
        "12 questions. Score: exact_match."
    )
    text = page(gathered)
    assert "<h1>MustDrop and random on vqa</h1>" in text and gathered.introduction in text
    assert (
        text.index(gathered.introduction)
        < text.index('<svg viewBox="')
        < text.index('id="summary"')
    )
    # times and hashes stand behind, and folded
    assert text.index('id="summary"') < text.index("Code and machine")
    folded = {tag: attributes for tag, attributes in Read(text).tags if tag == "details"}
    assert text.count("<details>") == 2 and "open" not in folded["details"]
    one = write(tmp_path / "one", "fastv")
    assert gather(tmp_path / "one").title == "FastV on vqa"
    assert gather(tmp_path / "one").introduction.startswith("1 run of FastV, at budgets of 192")
    write(tmp_path / "one", "dart")
    assert gather(tmp_path / "one").title == "dart and FastV on vqa"
    for number in range(9):
        write(tmp_path / "one", f"m{number}")
    assert gather(tmp_path / "one").title == "dart and 10 others on vqa"
    assert "m6 and 2 more, at" in gather(tmp_path / "one").introduction
    record = json.loads((one / "record.json").read_text())
    (one / "record.json").write_text(json.dumps({**record, "benchmark": "pocket_vqa"}))
    assert gather(tmp_path / "one").title == "FastV and 10 others on PocketVQA and vqa"


def test_mustdrop_leads_the_title_and_the_others_follow(tmp_path):
    for method in ("vanilla", "fastv", "cls_topk", "mustdrop"):
        write(tmp_path, method)
    gathered = gather(tmp_path)
    assert gathered.title == "MustDrop and 2 others on vqa"
    assert gathered.introduction.startswith("4 runs of vanilla, MustDrop, cls_topk, FastV, at")


def test_the_title_of_vanilla_alone_is_vanilla(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0)
    gathered = gather(tmp_path)
    assert gathered.title == "vanilla on vqa" and "budgets" not in gathered.introduction
    assert len(gathered.plots) == 1


def marks(drawn):
    """The attributes of each point of a plot."""
    return [
        dict(re.findall(r'([\w-]+)="([^"]*)"', found))
        for found in re.findall(r"<path ([^>]*)>", str(drawn))
    ]


def across(mark):
    return float(re.match(r"translate\((\S+) ", mark["transform"])[1])


def test_the_plot_on_top_has_the_points_of_the_figure_at_their_own_tokens(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0, draws(0, p=0.9))
    executed = {"mustdrop": (190.0, 64.0), "fastv": (192.0, 64.4), "random": (192.0, 64.0)}
    for number, (method, counts) in enumerate(executed.items()):
        for budget, tokens in zip(("t192", "t64"), counts, strict=True):
            write(tmp_path, method, budget, tokens, draws(number + 1))
    ((caption, drawn),) = gather(tmp_path).plots
    found = marks(drawn)
    assert caption == "" and len(found) == 6
    lines = points(load(tmp_path), "tokens")
    places = {}
    for mark in found:
        point = next(p for p in lines[mark["data-method"]] if p.x == float(mark["data-tokens"]))
        places[point.x] = across(mark)
        assert mark["stroke"] == look_of(mark["data-method"]).color
        assert mark["d"] == outline(look_of(mark["data-method"]).marker)
        # hollow where the budget was missed: 190 for 192
        assert (mark["fill"] == "#ffffff") == (point.x == 190.0)
    # equal counts stand at one x, and the distance is the logarithm of the ratio
    assert len(places) == 4
    first, last = places[192.0], places[64.0]
    for tokens, x in places.items():
        share = math.log(192 / tokens) / math.log(192 / 64)
        assert x == pytest.approx(first + share * (last - first), abs=0.2)
    bars = {float(x) for x in re.findall(r'<line x1="([\d.]+)" x2="\1" class="bar"', str(drawn))}
    assert bars == set(places.values())
    assert "mustdrop: " in str(drawn) and "more than 1 % off its budget" in str(drawn)
    for name in ("vanilla", *executed):
        assert f">{name}</text>" in str(drawn)


def test_runs_without_a_budget_stand_pale_and_name_no_line(tmp_path):
    write(tmp_path, "mustdrop", "t192", 192.0, draws(1))
    write(tmp_path, "mustdrop", "none", 64.0, draws(2), config={"prefill": {"gamma": 1}}, key="s")
    ((_, drawn),) = gather(tmp_path).plots
    pale, strong = sorted(marks(drawn), key=lambda mark: float(mark["data-tokens"]))
    assert pale["class"] == "mark pale" and strong["class"] == "mark"
    assert str(drawn).count('class="bar"') == 1
    (lead,) = re.findall(r'points="(\S+),\S+ \S+" stroke="[^"]*" class="lead"', str(drawn))
    assert float(lead) == pytest.approx(across(strong) + 8)


def test_a_method_looks_on_the_page_as_in_the_figures(root):
    floor(root, "tome", "t16", 74.0)
    gathered = gather(root)
    for arm in gathered.content["arms"]:
        method = arm["key"].split("-")[0]
        assert arm["look"] == look(method) and arm["look"]["color"] == look_of(method).color
    shown = gathered.content["summary"]
    place = shown["heads"].index("method")
    assert len(shown["rows"]) == 4
    for row in shown["rows"]:
        assert row["look"] == look(row["cells"][place])
    assert len({(each["color"], each["outline"]) for each in map(look, KNOWN)}) == len(KNOWN)
    assert len({outline(marker) for marker in MARKS}) == len(MARKS)


def test_each_group_of_runs_has_a_plot_with_its_name(tmp_path):
    write(tmp_path, "mustdrop")
    other = write(tmp_path, "fastv", key="other")
    record = json.loads((other / "record.json").read_text())
    (other / "record.json").write_text(json.dumps({**record, "benchmark": "gqa"}))
    plots = gather(tmp_path).plots
    assert [caption for caption, _ in plots] == ["e · pocket · gqa", "e · pocket · vqa"]
    assert all(len(marks(drawn)) == 1 for _, drawn in plots)
    assert page(gather(tmp_path)).count("<figcaption>e · pocket") == 2


def test_a_name_cannot_break_out_of_the_plot():
    point = Point(192.0, 50.0, 40.0, 60.0, True)
    drawn = str(plot({'"><script>': [point]}, "<b>", "<i>"))
    assert "<script>" not in drawn and "<b>" not in drawn and "<i>" not in drawn
    assert "&lt;script&gt;" in drawn


def test_a_point_without_an_interval_has_no_bar():
    point = Point(192.0, 1500.0, math.nan, math.nan, True)
    drawn = str(plot({"fastv": [point], "vanilla": [replace(point, x=576.0)]}, "mme", ""))
    assert "nan" not in drawn and 'class="bar"' not in drawn and 'class="band"' not in drawn
    assert "mme, %" not in drawn and ">mme<" in drawn and "fastv: 1500.0, 192.0 tokens" in drawn


def test_fates_are_packed_as_they_are(root):
    gathered = gather(root)
    for arm, made in ((0, bare), (1, life)):
        for doc in (0, 1):
            trace = made(4, doc)
            fates = patch_fates(trace)
            image = gathered.content["arms"][arm]["traces"][doc]["images"][0]
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


def test_a_grid_that_is_no_square_and_a_prompt_without_an_image(tmp_path):
    (tmp_path / "traces").mkdir()
    for doc, grids in enumerate(([(2, 8)], [])):
        book = ledger(4, [range(16)] * 2)
        book.grids = grids
        Trace(book).save(trace_path(tmp_path, doc))
    traces = Traces()
    assert traces.add(tmp_path, 0)["images"][0]["grid"] == (2, 8)
    assert traces.add(tmp_path, 1) is None and traces.imageless == 1


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
    last = gathered.content["arms"][2]["traces"][5]["images"][0]["picture"]
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
    assert dict(found["about"])["Traced"].startswith("nothing: mustdrop trace")


def test_a_ledger_alone_has_fates_and_no_picture(tmp_path):
    folder = write(tmp_path, "vanilla", "none", 576.0, draws(0))
    (folder / "traces").mkdir()
    ledger(4, [range(16)] * 4).save(trace_path(folder, 3))
    gathered = gather(tmp_path)
    trace = gathered.content["arms"][0]["traces"][3]
    assert trace["images"][0]["picture"] is None and trace["gamma"] is None
    assert planes(gathered, trace["images"][0])["left"] == [4 + 2] * 16
    assert "no picture" in dict(gathered.content["about"])["Traced"]


def test_traces_that_cannot_be_shown_are_counted(tmp_path):
    folder = write(tmp_path, "vanilla", "none", 576.0, draws(0))
    (folder / "traces").mkdir()
    torn, imageless = ledger(4, [range(16)] * 4), ledger(4, [range(16)] * 4)
    torn.vision[3] = False  # a slot fewer than cells
    imageless.grids = []
    Trace(torn).save(trace_path(folder, 3))
    Trace(imageless).save(trace_path(folder, 4))
    with pytest.warns(LeftOut, match=r"3\.npz cannot be shown"):
        gathered = gather(tmp_path)
    assert gathered.content["arms"][0]["traces"] == {}
    traced = dict(gathered.content["about"])["Traced"]
    assert "1 left out, because their files are torn" in traced
    assert "1 left out, because their prompts have no image" in traced


def test_several_pictures_of_a_prompt_are_several_images():
    book = ledger(4, [range(16), range(8)])
    book.grids = [(2, 4)] * 2
    images = Traces()._images(Trace(book, pictures=[picture(0), picture(1)]))["images"]
    assert [image["start"] for image in images] == [0, 8 * len(PLANES)]
    assert [image["picture"] for image in images] == [0, 1]
    assert [image["label"] for image in images] == ["", ""]


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
    keys = [arm["key"] for arm in gather(tmp_path).content["arms"]]
    assert keys == ["vanilla-none-k", "random-t192-k1", "random-t192-k2"]
    names = [arm["name"] for arm in gather(tmp_path).content["arms"]]
    assert names == ["vanilla", "random t192, seed=1", "random t192, seed=2"]


def test_runs_that_asked_different_questions_are_refused(tmp_path):
    write(tmp_path, "vanilla", "none", 576.0, draws(0))
    other = write(tmp_path, "fastv", scores=draws(1), experiment="f", key="o")
    rewrite(other, lambda line: {"question": "another one ?"})
    with pytest.raises(ValueError, match="has two different questions or targets in vqa"):
        gather(tmp_path)


def test_scores_of_what_ran_beside_stand_with_the_arm(tmp_path):
    folder = write(tmp_path, "mustdrop", scores=(1.0, 0.0), config=stages(prefill="DualAttention"))
    arm = {"scores": {"exact_match": 1.0}}
    rewrite(folder, lambda line: {"controls": {"flat_random": [arm] * line["doc_id"]}})
    assert gather(tmp_path).content["arms"][0]["controls"] == {"flat": [None, 1.0]}


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
    assert "no run has an answer: no method can reach its budget" in capsys.readouterr().err


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
            made = Trace(
                trace.ledger, trace.text_attention, {}, trace.words, trace.values, [out.getvalue()]
            )
            traces._images(made)
        assert len(traces.pictures) == 1
        sizes.append(len(zlib.compress(bytes(traces.fates), 9)) * 4 / 3 + len(traces.pictures[0]))
    assert 1000 * np.mean(sizes) < 13e6  # the rest is for questions and answers
