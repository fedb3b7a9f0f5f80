"""The board as a browser shows it: real headless Chromium, nothing faked but the runs."""

import json

import pytest
from results import draws
from shared_runs import packed, shared_run
from test_report_browser import CONTRAST

from experiments.sharing.board import main

pytestmark = pytest.mark.browser
NASTY = "</script><script>window.broken = 1</script><img src=x onerror=window.broken=2>"
STAGES = {"fastv": "prefill", "visionzip": "vision", "mustdrop": "vision prefill"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A board of two packs: two models, two budgets, four methods."""
    root = tmp_path_factory.mktemp("board")
    for number, model in enumerate(("pocket", "pocket_smol")):
        runs = root / f"pack{number}"
        config = {"model": {"name": model}}
        shared_run(runs, "vanilla", "none", 576.0, draws(0, 30, 0.9), config=config, model=model)
        for seed, (method, stages) in enumerate(STAGES.items(), 1):
            stage = {name: {"_target_": NASTY} for name in stages.split()}
            for budget, executed in (("t192", 192.0), ("t64", 64.0)):
                shared_run(
                    runs / budget, method, budget, executed, draws(seed, 30),
                    config={**config, **stage}, model=model,
                    hardware={"cpu": NASTY if number else "x", "threads": 1},
                )  # fmt: skip
        packed(runs, root / f"pack{number}.zip")
    assert main([*map(str, sorted(root.glob("*.zip"))), "--output", str(root / "site")]) == 0
    return root / "site"


@pytest.fixture
def tab(chromium, site):
    """A page that writes nothing on the console and loads nothing but files of the site."""
    context = chromium.new_context(viewport={"width": 1400, "height": 900})
    opened = context.new_page()
    messages, addresses = [], []
    opened.on("console", lambda message: messages.append(message.text))
    opened.on("pageerror", lambda error: messages.append(str(error)))
    opened.on("request", lambda request: addresses.append(request.url))
    go(opened, site)
    yield opened
    assert messages == []
    files = {url for url in addresses if not url.startswith("data:")}
    assert all(url.startswith(site.as_uri()) for url in files)
    assert opened.evaluate("window.broken") is None
    context.close()


def go(tab, site, name="index.html", address=""):
    tab.goto("about:blank")
    tab.goto((site / name).as_uri() + address)
    if name == "index.html":
        tab.wait_for_selector("html[data-ready]")


def shown(tab, selector):
    return tab.locator(f"{selector}:visible").count()


def test_filters_show_what_matches_and_count_it(tab, site):
    assert shown(tab, ".board") == 2 and shown(tab, ".budget") == 4
    assert tab.locator("#count").inner_text() == "12 runs in 4 tables, vanilla aside"
    tab.locator("[name=model]").select_option("pocket_smol")
    assert shown(tab, ".board") == 1 and shown(tab, ".budget") == 2
    tab.locator("[name=budget]").select_option("t64")
    assert shown(tab, ".budget") == 1
    assert tab.locator("#count").inner_text() == "3 runs in 1 table, vanilla aside"
    tab.locator("[name=stage]").select_option("vision")
    names = tab.locator(".result:visible th").all_inner_texts()
    assert sorted(name.strip() for name in names) == ["MustDrop", "VisionZip", "vanilla"]
    assert tab.url.endswith("#model=pocket_smol&budget=t64&stage=vision")
    assert tab.locator("#count").inner_text() == "2 runs in 1 table, vanilla aside"


def test_the_address_of_a_filtered_board_opens_it_again(tab, site):
    go(tab, site, address="#benchmark=vqa&stage=prefill&model=none")
    assert tab.locator("[name=stage]").input_value() == "prefill"
    assert tab.locator("[name=model]").input_value() == ""
    assert tab.locator("#count").inner_text() == "8 runs in 4 tables, vanilla aside"
    tab.evaluate("location.hash = ''")
    tab.wait_for_function("document.querySelector('[name=stage]').value === ''")
    assert tab.locator("#count").inner_text().startswith("12 runs")


def test_links_lead_to_methods_samples_and_back(tab, site):
    tab.locator(".result a", has_text="MustDrop").first.click()
    assert tab.locator("h1").inner_text() == "MustDrop"
    assert tab.locator("dd a").first.get_attribute("href") == ("https://arxiv.org/abs/2411.10803")
    picture = tab.locator(".kept img")
    assert picture.evaluate("each => each.complete && each.naturalWidth") == 228
    assert "64" in tab.locator("figcaption").inner_text()
    assert tab.locator("tbody tr").count() == 4
    tab.locator("a", has_text="questions and answers").first.click()
    tab.wait_for_selector("html[data-ready]")
    assert tab.locator("#list tbody tr").count() == 30
    marks = tab.locator("#list tbody tr").first.locator(".verdict .mark").all_inner_texts()
    assert len(marks) == 2 and set(marks) <= {"✓", "✗"}
    tab.locator("a", has_text="All leaderboards").click()
    tab.wait_for_selector("html[data-ready]")
    assert tab.locator("h1").inner_text() == "Leaderboards"


def test_every_link_inside_the_site_leads_to_a_file(tab, site):
    for path in sorted(site.rglob("*.html")):
        go(tab, site, path.relative_to(site).as_posix())
        links = tab.locator("a[href]").evaluate_all("all => all.map((each) => each.href)")
        inside = {link.partition("#")[0] for link in links if link.startswith("file:")}
        for link in inside:
            assert (site / link.removeprefix(f"{site.as_uri()}/")).is_file(), link


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "methods/mustdrop.html"])
def test_text_is_readable_in_light_and_dark(chromium, site, scheme, name):
    """WCAG 2.1, 1.4.3: a contrast of 4.5 for every text."""
    context = chromium.new_context(color_scheme=scheme)
    opened = context.new_page()
    go(opened, site, name)
    assert opened.evaluate(CONTRAST) >= 4.5
    context.close()


@pytest.mark.parametrize("name", ["index.html", "methods/mustdrop.html"])
def test_a_narrow_screen_scrolls_one_way_only(chromium, site, name):
    context = chromium.new_context(viewport={"width": 360, "height": 740})
    opened = context.new_page()
    go(opened, site, name)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_the_intervals_are_drawn_on_one_scale(tab, site):
    """The mark of the best score of a leaderboard stands right of all others."""
    board = tab.locator(".board").first
    drawn = board.locator(".result").evaluate_all("""all => all.map((row) => [
      parseFloat(row.querySelector('td.number:not(.rank)').innerText),
      row.querySelector('.interval path').getBoundingClientRect().x,
    ])""")
    by_score = sorted(drawn)
    assert [x for _, x in by_score] == sorted(x for _, x in drawn)


def test_the_facts_of_the_board_name_its_packs(site):
    packs = json.loads((site / "board.json").read_text())["packs"]
    assert list(packs) == ["pack0.zip", "pack1.zip"]
    assert all(len(digest) == 64 for digest in packs.values())


@pytest.mark.parametrize(("name", "count"), [("index.html", 7), ("methods/mustdrop.html", 2)])
def test_a_table_that_goes_on_has_a_hint(chromium, site, name, count):
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    opened = context.new_page()
    go(opened, site, name)
    assert opened.locator(".hint:visible").count() == opened.locator(".wide.more").count() == count
    opened.set_viewport_size({"width": 2200, "height": 900})
    opened.wait_for_timeout(100)
    assert opened.locator(".hint:visible").count() == 0
    context.close()
