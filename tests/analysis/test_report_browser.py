"""The page as a browser shows it: real headless Chromium, nothing faked but the runs."""

import time

import pytest
from results import draws, write
from traced_runs import bare, life, rewrite, traced_root

from analysis.figures.palette import look_of
from analysis.records.patches import patch_fates
from analysis.report.page import page as html
from analysis.report.page_data import gather
from mustdrop.runs.folder import trace_path

pytestmark = pytest.mark.browser
N = 120
SCORES = (draws(0, N, 0.9), draws(1, N), draws(2, N))
NASTY = "</script><script>window.broken = 1</script><img src=x onerror=window.broken=2>"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = traced_root(
        tmp_path_factory.mktemp("runs"), SCORES, traces=3, side=8,
        asked=lambda doc: f"what colour is shape {doc} ?" + NASTY * (doc == 7),
    )  # fmt: skip
    out = root / "report.html"
    out.write_text(html(gather(root)))
    return out


@pytest.fixture
def tab(chromium, made):
    """A page that says nothing on the console and asks the network for nothing."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.go = lambda address="": go(opened, made, address)
    opened.go()
    yield opened
    assert said == []
    assert {url.split("#")[0] for url in asked if not url.startswith("data:")} == {made.as_uri()}
    context.close()


def go(tab, made, address=""):
    tab.goto("about:blank")
    tab.goto(made.as_uri() + address)
    tab.wait_for_selector("html[data-ready]")


def pixels(tab, panel=0):
    """The drawn picture of a panel, as the browser holds it."""
    return tab.evaluate(f"document.querySelectorAll('.frame canvas')[{panel}].toDataURL()")


def layer(tab, value):
    tab.locator("#layer").evaluate(
        "(slider, value) => { slider.value = value;"
        " slider.dispatchEvent(new Event('input', { bubbles: true })); }", str(value),
    )  # fmt: skip


def column(tab, table, name):
    heads = tab.locator(f"#{table} thead th").all_inner_texts()
    place = next(i for i, head in enumerate(heads) if head.startswith(name))
    return tab.locator(f"#{table} tbody tr > :nth-child({place + 1})").all_inner_texts()


def count(tab):
    return tab.locator("#count").inner_text()


def open_sample(tab, address="#sample=vqa:1&arm=mustdrop-t192-k"):
    tab.go(address)
    tab.wait_for_selector(".frame canvas")


def test_the_slider_changes_the_picture_and_every_text(tab):
    open_sample(tab)
    trace = life(8, 1)
    tokens = trace.ledger.vision_per_layer()
    slider = tab.locator("#layer")
    assert int(slider.get_attribute("max")) + 1 == 1 + 1 + 4 + 1  # encoder, input, layers, decode
    seen, told = [], []
    for value, step, left in [
        (0, "vision encoder", f"64 patches to {tokens[0]} tokens"),
        (1, "input, before layer 0", f"{tokens[0]} of 64 tokens"),
        (2, "after layer 0", f"{tokens[1]} of 64 tokens"),
        (3, "after layer 1", f"{tokens[2]} of 64 tokens"),
        (6, "KV cache while decoding", "tokens per layer"),
    ]:
        layer(tab, value)
        assert slider.get_attribute("aria-valuetext").startswith(step)
        assert left in slider.get_attribute("aria-valuetext")
        assert step in tab.locator("#step").inner_text()
        assert left in tab.locator(".panel .left").first.inner_text()
        seen.append(pixels(tab))
        told.append(tab.locator(".frame canvas").first.get_attribute("aria-label"))
    assert len({*seen}) == len({*told}) == 5
    assert pixels(tab, 1) != pixels(tab, 0)
    gone = int((patch_fates(trace).left == 0).sum())
    assert f"{gone} dropped here" in told[2] and "failed both tests" in told[2]
    assert tab.evaluate("window.broken") is None


def test_the_picture_shows_what_left_where_it_left(tab):
    """Colours of patches, read from the canvas: a dropped one is washed, one that stays is not."""
    open_sample(tab, "#sample=vqa:1&arm=mustdrop-t192-k&layer=0")
    fates = patch_fates(life(8, 1))
    read = """() => {
      const canvas = document.querySelector('.frame canvas'), wide = canvas.width / 8;
      const pen = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
      pen.drawImage(canvas, 0, 0);
      const all = pen.getImageData(0, 0, canvas.width, canvas.height).data;
      return Array.from({ length: 64 }, (_, patch) => {
        const x = Math.round((patch % 8 + 0.5) * wide);
        const y = Math.round((Math.floor(patch / 8) + 0.2) * wide);
        return all.slice(4 * (y * canvas.width + x)).slice(0, 3).join().split(",").map(Number);
      });
    }"""
    layer(tab, 1)
    before = tab.evaluate(read)
    layer(tab, 2)
    during = tab.evaluate(read)
    layer(tab, 3)
    after = tab.evaluate(read)
    for patch, left in enumerate(fates.left):
        assert (during[patch] != before[patch]) == (left == 0)
        if left == 0:  # half orange, then grey
            assert during[patch] == pytest.approx(mixed(before[patch], (213, 94, 0), 0.55), abs=3)
            assert after[patch] == pytest.approx(mixed(before[patch], (212,) * 3, 0.88), abs=3)


def mixed(below, colour, share):
    return [(1 - share) * old + share * new for old, new in zip(below, colour, strict=True)]


def test_a_patch_tells_its_fate_to_mouse_and_keyboard(tab):
    open_sample(tab)
    frame, fate = tab.locator(".frame").first, tab.locator(".fate").first
    frame.hover(position={"x": 10, "y": 10})
    assert "Row 1, column 1" in fate.inner_text()
    assert "merged with 3 more into one token" in fate.inner_text()
    tab.mouse.move(0, 0)
    frame.focus()
    tab.keyboard.press("ArrowDown")  # the first key goes to the middle
    assert "Row 5, column 5" in fate.inner_text()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", *("ArrowDown",) * 5):
        tab.keyboard.press(key)
    words = fate.inner_text()
    assert "Row 8, column 8" in words and "a key token, never dropped" in words
    assert "of all attention, gamma 0.012" in words and "alpha 0.015" in words
    assert any(f"“{word}”" in words for word in ("what", "colour", "?"))
    assert "KV cache of 4 of 4 layers" in words


def test_pointing_at_a_patch_leaves_the_step_as_it_is(tab):
    open_sample(tab)
    layer(tab, 5)
    before = pixels(tab)
    tab.locator(".frame").first.hover(position={"x": 60, "y": 60})
    assert pixels(tab) != before  # the patch is marked
    tab.mouse.move(0, 0)
    assert pixels(tab) == before


def test_the_last_sample_asked_for_is_the_one_that_is_shown(tab):
    open_sample(tab)
    for key in "jkjkkj":
        tab.keyboard.press(key)
    tab.wait_for_timeout(200)
    tab.keyboard.press("j")
    tab.wait_for_timeout(200)
    assert tab.locator("#question").inner_text() == "what colour is shape 2 ?"
    shown = pixels(tab)
    open_sample(tab, "#sample=vqa:2&arm=mustdrop-t192-k")
    assert pixels(tab) == shown


def test_the_encoder_hands_on_what_leaves_before_layer_0(tab):
    """Random tokens leave at the input: the encoder's step tells of all of them."""
    told = tab.evaluate("leftWords('encoder', 64, 64, 64, [16, 16], [16, 16])")
    assert told == "64 patches to 64 tokens"


def test_a_picture_says_what_it_shows(tab):
    names = tab.evaluate(
        "[{ label: 'whole image' }, { label: '' }].map((item, at, all) => viewName(all, at))"
    )
    assert names == ["1 of 2: whole image", "2 of 2"]


def test_filters_count_what_they_leave(tab):
    vanilla, mustdrop, _ = SCORES
    assert count(tab) == f"{N} of {N} samples"
    tab.locator("[name=status]").select_option("wrong")
    assert count(tab) == f"{mustdrop.count(0.0)} of {N} samples"
    tab.locator("[name=status]").select_option("lost")
    lost = sum(ours == 0 and other == 1 for ours, other in zip(mustdrop, vanilla, strict=True))
    assert count(tab) == f"{lost} of {N} samples"
    tab.locator("[name=status]").select_option("gained")
    gained = sum(ours == 1 and other == 0 for ours, other in zip(mustdrop, vanilla, strict=True))
    assert count(tab) == f"{gained} of {N} samples"
    tab.locator("[name=status]").select_option("")
    tab.get_by_label("Type").select_option("count")
    assert count(tab) == f"{N // 2} of {N} samples"
    tab.get_by_label("arms disagree").check()
    split = sum(len({*scores}) > 1 for scores in list(zip(*SCORES, strict=True))[::2])
    assert count(tab) == f"{split} of {N} samples"
    tab.get_by_label("arms disagree").uncheck()
    tab.get_by_label("traced only").check()
    assert count(tab) == f"2 of {N} samples"
    tab.go("#traced=yes&type=count")
    assert count(tab) == f"2 of {N} samples"
    tab.go()
    tab.get_by_label("Search").fill("SHAPE 11 ?")
    assert count(tab) == f"1 of {N} samples"
    tab.get_by_label("Search").fill("T113")  # in the target and the answers alone
    assert count(tab) == f"1 of {N} samples"
    tab.get_by_label("Search").fill("nothing of the kind")
    assert count(tab) == f"0 of {N} samples: none passes the filters"
    assert tab.locator("#count").get_attribute("role") == "status"


def test_the_summary_sorts_by_clicks_and_by_keys(tab):
    head = tab.get_by_role("button", name="exact_match")
    head.click()
    assert head.locator("..").get_attribute("aria-sort") == "descending"
    scores = [float(text.split()[0]) for text in column(tab, "summary", "exact_match")]
    assert scores == sorted(scores, reverse=True) and len({*scores}) == 3
    tab.keyboard.press("Enter")  # the focus stayed on the head that was clicked
    assert head.locator("..").get_attribute("aria-sort") == "ascending"
    assert [float(text.split()[0]) for text in column(tab, "summary", "exact_match")] == scores[
        ::-1
    ]
    tab.get_by_role("button", name="method").focus()
    tab.keyboard.press("Space")
    assert column(tab, "summary", "method") == ["mustdrop", "random", "vanilla"]
    # no difference to itself: last, whichever way
    for _ in range(2):
        tab.get_by_role("button", name="Δ vanilla").click()
        assert column(tab, "summary", "method")[-1] == "vanilla"
    assert "sort=" in tab.url
    tab.reload()
    assert column(tab, "summary", "method")[-1] == "vanilla"


def test_a_link_opens_a_sample_as_it_was_seen(tab):
    open_sample(tab, "#sample=vqa:2&arm=mustdrop-t192-k&layer=1")
    assert tab.locator("#question").inner_text() == "what colour is shape 2 ?"
    assert tab.locator("#step").inner_text().startswith("after layer 1")
    assert tab.title().startswith("vqa:2 ·")
    assert not tab.locator("#overview").is_visible()
    layer(tab, 2)
    assert "sample=vqa:2" in tab.url and "layer=0" in tab.url and "arm=mustdrop-t192-k" in tab.url
    for broken in ("#sample=vqa:999", "#arm=nobody&sort=99.up&page=-4&type=x", "#%%%"):
        tab.go(broken)
        assert count(tab) == f"{N} of {N} samples"


def test_all_answers_stand_with_words_for_right_and_wrong(tab):
    open_sample(tab)
    rows = tab.locator("#answers tbody tr").all()
    assert len(rows) == 3
    for row, scores in zip(rows, SCORES, strict=True):
        verdict = row.locator(".verdict")
        assert verdict.locator(".mark").inner_text() == ("✓" if scores[1] else "✗")
        assert ("right:" if scores[1] else "wrong:") in verdict.text_content()
    tab.get_by_label("show random t192 as B").click()
    assert "other=random-t192-k" in tab.url
    assert "no trace in B (random t192)" in tab.locator("#untraced").inner_text()
    assert tab.locator(".panel").count() == 1
    tab.get_by_label("show vanilla as A").click()
    assert tab.locator(".panel h3").inner_text() == "A: vanilla"
    assert tab.evaluate("document.activeElement.dataset.focus") == "arm vanilla-none-k"


def test_a_nasty_question_is_text(tab):
    tab.get_by_label("Search").fill("shape 7 ?")
    assert NASTY in tab.locator("#list tbody a").inner_text()
    tab.locator("#list tbody a").click()
    assert NASTY in tab.locator("#question").inner_text()
    assert tab.evaluate("window.broken") is None


def test_a_walk_by_keyboard_alone(tab):
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    for _ in range(60):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.dataset.sample") == "vqa:1":
            break
    assert tab.evaluate("document.activeElement.matches(':focus-visible')")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".frame canvas")
    assert tab.evaluate("document.activeElement.id") == "question"
    for _ in range(8):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "layer":
            break
    before = tab.locator("#step").inner_text()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#step").inner_text() != before
    tab.keyboard.press("j")
    assert tab.locator("#question").inner_text() == "what colour is shape 2 ?"
    tab.keyboard.press("k")
    tab.keyboard.press("k")
    assert tab.locator("#question").inner_text() == "what colour is shape 0 ?"
    tab.keyboard.press("Escape")
    assert tab.locator("#overview").is_visible() and not tab.locator("#sample").is_visible()
    assert tab.evaluate("document.activeElement.dataset.sample") == "vqa:0"


def test_skipping_to_the_content_leaves_the_sample_open(tab):
    open_sample(tab)
    address = tab.url
    tab.locator(".skip").focus()
    tab.keyboard.press("Enter")
    assert tab.url == address and tab.locator("#sample").is_visible()


def test_keys_typed_into_the_search_walk_nowhere(tab):
    tab.get_by_label("Search").focus()
    tab.keyboard.type("jk 1")
    assert tab.get_by_label("Search").input_value() == "jk 1"
    assert tab.locator("#overview").is_visible()


def test_back_goes_where_one_came_from(tab):
    tab.get_by_label("Type").select_option("color")
    tab.locator("#list tbody a").first.click()
    tab.wait_for_selector(".frame canvas")
    first = tab.locator("#question").inner_text()
    tab.get_by_role("button", name="Next").click()
    assert tab.locator("#question").inner_text() == "what colour is shape 3 ?"
    assert "of 60, filtered" in tab.locator("#position").inner_text()
    tab.go_back()
    assert tab.locator("#question").inner_text() == first
    tab.go_back()
    assert count(tab) == f"{N // 2} of {N} samples"
    tab.go_forward()
    assert tab.locator("#question").inner_text() == first


def test_pages_of_fifty_and_back_to_the_right_one(tab):
    assert tab.locator("#list tbody tr").count() == 50
    tab.get_by_role("button", name="Later").click()
    tab.get_by_role("button", name="Later").click()
    assert tab.locator("#pages span").inner_text() == f"101 to {N}"
    assert tab.get_by_role("button", name="Later").is_disabled()
    tab.locator("#list tbody a").first.click()
    for _ in range(2):
        tab.keyboard.press("k")
    tab.keyboard.press("Escape")
    assert tab.locator("#pages span").inner_text() == "51 to 100"


def test_the_tree_that_a_screen_reader_walks(tab):
    tree = tab.locator("body").aria_snapshot()
    for part in (
        "banner", "main", "contentinfo", 'region "Summary"', 'region "Samples"',
        'search "Filter the samples"', 'columnheader "method"', 'rowheader "mustdrop"', "status",
        'combobox "Type"', 'searchbox "Search"', 'navigation "Pages of samples"',
    ):  # fmt: skip
        assert part in tree, part
    open_sample(tab)
    tree = tab.locator("body").aria_snapshot()
    for part in (
        'article "what colour is shape 1 ?"', 'slider "Layer"', 'heading "A: mustdrop t192"',
        'img "mustdrop t192, after layer 0', 'application "Patches of A: mustdrop t192',
        'img "Vision tokens that enter each layer', 'list "Marks in the pictures"',
    ):  # fmt: skip
        assert part in tree, part
    unnamed = """() => [...document.querySelectorAll('button, input, select, a, [tabindex="0"]')]
        .filter((each) => each.checkVisibility())
        .filter((each) => !(each.textContent.trim() || each.getAttribute('aria-label')
          || each.getAttribute('aria-labelledby') || each.labels?.length))
        .map((each) => each.outerHTML)"""
    assert tab.evaluate(unnamed) == []


CONTRAST = """() => {
  const bright = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (each) => {
    for (let at = each; at; at = at.parentElement) {
      const found = parse(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found.slice(0, 3);
    }
    return [255, 255, 255];
  };
  let least = 21;
  for (const each of document.querySelectorAll('body *')) {
    const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !each.checkVisibility() || each.disabled || each.closest('svg, script')) continue;
    const [a, b] = [parse(getComputedStyle(each).color).slice(0, 3), behind(each)].map(bright);
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(chromium, made, scheme):
    """WCAG 2.1, 1.4.3: a contrast of 4.5 for every text."""
    context = chromium.new_context(color_scheme=scheme)
    opened = context.new_page()
    papers = []
    for address in ("", "#sample=vqa:1"):
        go(opened, made, address)
        opened.wait_for_selector(".frame canvas" if address else "#list a")
        assert opened.evaluate(CONTRAST) >= 4.5
        papers.append(opened.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert papers == [{"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 27)"}[scheme]] * 2
    context.close()


def test_a_narrow_screen_scrolls_one_way_only(chromium, made):
    context = chromium.new_context(viewport={"width": 360, "height": 740})
    opened = context.new_page()
    for address in ("", "#sample=vqa:1"):
        go(opened, made, address)
        opened.wait_for_timeout(100)
        assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_a_click_anywhere_in_a_row_opens_its_sample(tab):
    for cell in (2, 5, 7):
        tab.go()
        tab.locator("#list tbody tr").nth(4).locator("> *").nth(cell).click()
        assert tab.locator("#question").inner_text() == "what colour is shape 4 ?"
        assert "sample=vqa:4" in tab.url
    tab.go_back()
    assert tab.locator("#overview").is_visible()
    # a click on the link opens it once, and words can be selected without leaving the list
    tab.locator("#list tbody a").nth(3).click()
    assert "sample=vqa:3" in tab.url
    tab.go_back()
    assert tab.locator("#overview").is_visible()
    # in a tab of its own, the list stays as it is
    tab.locator("#list tbody a").nth(3).click(modifiers=["ControlOrMeta"])
    assert tab.locator("#overview").is_visible() and "sample=" not in tab.url
    tab.evaluate("getSelection().selectAllChildren(document.querySelectorAll('#list tbody td')[1])")
    tab.locator("#list tbody tr").nth(4).dispatch_event("click")
    assert tab.locator("#overview").is_visible() and "sample=" not in tab.url


@pytest.mark.parametrize("address", ["", "#sample=vqa:1"])
def test_a_table_that_goes_on_says_so_until_its_end(chromium, made, address):
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    opened = context.new_page()
    go(opened, made, address)
    opened.wait_for_selector(".frame canvas" if address else "#list a")
    names = ["#answers"] if address else ["svg[role=img]", "#summary", "#list"]
    for name in names:
        wide = opened.locator(".wide").filter(has=opened.locator(name))
        hint = wide.locator("xpath=preceding-sibling::p[@class='hint']")
        assert hint.is_visible() and "scroll the" in hint.inner_text()
        faded = "getComputedStyle(each).maskImage.startsWith('linear-gradient')"
        assert wide.evaluate(f"each => {faded}")
        wide.evaluate("each => { each.scrollLeft = each.scrollWidth; }")
        opened.wait_for_timeout(100)
        assert not wide.evaluate(f"each => {faded}") and hint.is_visible()
    context.close()


def test_a_table_with_room_gives_no_hint(chromium, made):
    context = chromium.new_context(viewport={"width": 2200, "height": 900})
    opened = context.new_page()
    go(opened, made)
    assert (
        opened.locator(".hint:visible").count() == 0 and opened.locator(".wide.more").count() == 0
    )
    opened.set_viewport_size({"width": 390, "height": 844})
    opened.wait_for_timeout(100)
    assert opened.locator(".hint:visible").count() == 3
    context.close()


@pytest.mark.parametrize("width", [1400, 390])
def test_the_plot_and_what_was_compared_stand_on_top(chromium, made, width):
    context = chromium.new_context(viewport={"width": width, "height": 844})
    opened = context.new_page()
    go(opened, made)
    assert opened.locator("h1").inner_text() == "MustDrop and random on vqa"
    box = opened.locator(".plot svg").bounding_box()
    assert box["y"] + box["height"] < 844
    # letters can be read
    letters = opened.locator(".plot svg text").first.bounding_box()
    assert letters["height"] >= 10
    for mark in opened.locator(".plot .mark").all():
        found = mark.evaluate("each => [each.dataset.method, getComputedStyle(each).stroke]")
        color = look_of(found[0]).color
        assert found[1] == f"rgb({', '.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))})"
    colors = opened.locator("#summary .look path").evaluate_all(
        "all => all.map((each) => each.getAttribute('fill'))"
    )
    assert colors == [look_of(name).color for name in ("vanilla", "mustdrop", "random")]
    assert not opened.locator("#notes").is_visible() and not opened.locator("#about").is_visible()
    opened.get_by_text("How to read the table").click()
    assert opened.locator("#notes").is_visible()
    context.close()


def test_a_browser_that_cannot_inflate_the_data_says_so(chromium, made):
    context = chromium.new_context()
    opened = context.new_page()
    opened.add_init_script("delete window.DecompressionStream")
    opened.goto(made.as_uri())
    alert = opened.wait_for_selector("[role=alert]")
    assert "could not be read: DecompressionStream is not defined" in alert.inner_text()
    context.close()


def test_no_motion_where_none_is_wanted(chromium, made):
    moved = []
    for wish in ("reduce", "no-preference"):
        context = chromium.new_context(reduced_motion=wish)
        opened = context.new_page()
        go(opened, made)
        moved.append(
            opened.evaluate("getComputedStyle(document.querySelector('button')).transitionDuration")
        )
        context.close()
    assert moved == ["0s", "0.1s"]


def test_it_prints_what_is_seen(chromium, made):
    context = chromium.new_context()
    opened = context.new_page()
    go(opened, made, "#sample=vqa:1")
    opened.wait_for_selector(".frame canvas")
    opened.emulate_media(media="print")
    assert not opened.locator("#next").is_visible()
    assert (
        opened.locator("#step").is_visible() and opened.locator(".frame canvas").first.is_visible()
    )
    context.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A thousand samples in forty arms, twenty of them traced in three."""
    root = tmp_path_factory.mktemp("large")
    for arm in range(40):
        method = ("vanilla", "mustdrop", "fastv")[arm] if arm < 3 else f"method{arm}"
        folder = write(root, method, "none" if not arm else "t192", 192.0, draws(arm, 1000))
        rewrite(folder, lambda line, arm=arm: {
            "answer": f"answer {(line['doc_id'] * (arm + 1)) % 17}",
            "vision_tokens": [576, *[100 + (line["doc_id"] * arm) % 90] * 31],
        })  # fmt: skip
        if arm < 3:
            (folder / "traces").mkdir()
            for doc in range(20):
                trace = life(24, doc) if arm else bare(24, doc)
                trace.save(trace_path(folder, doc))
    out = root / "report.html"
    out.write_text(html(gather(root)))
    return out


def test_a_thousand_samples_open_and_filter_in_time(chromium, large):
    context = chromium.new_context()
    opened = context.new_page()
    start = time.perf_counter()
    go(opened, large)
    assert time.perf_counter() - start < 3
    assert count(opened) == "1000 of 1000 samples"
    spent = opened.evaluate("""() => {
      const search = document.querySelector('[name=q]'), out = [];
      for (const text of ['s', 'sh', 'answer 1', '']) {
        const start = performance.now();
        search.value = text;
        search.dispatchEvent(new Event('input', { bubbles: true }));
        document.body.offsetHeight;
        out.push(performance.now() - start);
      }
      return out;
    }""")
    assert max(spent) < 200  # milliseconds, one keystroke with its layout
    start = time.perf_counter()
    go(opened, large, "#sample=vqa:15&layer=0")
    opened.wait_for_selector(".frame canvas")
    assert time.perf_counter() - start < 3
    context.close()
