"""report.html in a real headless Chromium: nothing asked of a network, no fault, no serious finding of axe-core."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from report_files import evaluation, run_folder, sweep_folder

from raylora.cluster.report import page_of
from raylora.cluster.storage.filesystem import locate
from raylora.report import evaluation_page

pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CHROMIUM = "/usr/bin/chromium"  # Debian's; Playwright's own download is not used
SIZES = [(1280, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not there (Debian's package chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


PAGES: dict[str, Callable[[Path], str]] = {
    "run": lambda folder: page_of(locate(str(run_folder(folder, evaluated=True)))),
    "sweep": lambda folder: page_of(locate(str(sweep_folder(folder)))),
    "evaluation": lambda folder: evaluation_page({"adapters": [evaluation()], "comparisons": []}),
}


@pytest.fixture
def opened(browser: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    kind, (width, scheme) = request.param
    file = tmp_path / "report.html"
    file.write_text(PAGES[kind](tmp_path / "folder"), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    asked, complaints = list[str](), list[str]()
    page.on("request", lambda each: asked.append(each.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert asked == [file.as_uri()]
    assert complaints == []


@pytest.mark.parametrize("opened", [(kind, size) for kind in PAGES for size in SIZES], indirect=True)
def test_a_page_is_whole_on_desks_and_phones_and_passes_axe(opened: Page) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    found = Axe().run(opened)
    serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert [(each["id"], each["nodes"][0]["html"]) for each in serious] == []
    for drawing in opened.get_by_role("img").all():
        expect(drawing).to_be_visible()


@pytest.mark.parametrize("opened", [("run", SIZES[0])], indirect=True)
def test_the_slider_is_moved_by_keys_and_says_what_is_answered(opened: Page) -> None:
    slider = opened.get_by_role("slider", name="Texts that are answered")
    told = opened.locator("output")
    expect(told).to_contain_text("60 rows (100 %) are answered")
    slider.focus()
    opened.keyboard.press("ArrowLeft")
    expect(told).to_contain_text("45 rows (75 %) are answered")
    expect(told).to_contain_text("15 are left to people")
    expect(slider).to_have_attribute("aria-valuetext", "75 % answered")


@pytest.mark.parametrize("opened", [("run", SIZES[1])], indirect=True)
def test_the_keyboard_reaches_what_can_be_opened_or_scrolled(opened: Page) -> None:
    reached: set[str] = set()
    for _ in range(60):
        opened.keyboard.press("Tab")
        reached.add(opened.evaluate("document.activeElement.tagName"))
    assert {"INPUT", "SUMMARY", "DIV"} <= reached
    opened.get_by_text("config.yaml", exact=True).click()
    expect(opened.get_by_text("metric_for_best_model: accuracy")).to_be_visible()
