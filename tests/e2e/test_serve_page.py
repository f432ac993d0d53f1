"""The page at `/` in a real headless Chromium, by keyboard and by accessible names, against a running server."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from serving import Server

pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CHROMIUM = "/usr/bin/chromium"  # Debian's; Playwright's own download is not used
# without these, Chromium looks up Google's hosts at every start
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
GOOD = "Beautifully made, and a pleasure to use every day."
BAD = "Three phone calls later I still have no refund."


@dataclass
class Visit:
    """One page in one browser context, and what it asked for and complained of."""

    page: Page
    url: str
    requests: list[str] = field(default_factory=list[str])
    complaints: list[str] = field(default_factory=list[str])

    def open(self) -> Page:
        self.page.goto(self.url)
        expect(self.page.get_by_label("Adapter")).to_have_value("demo")
        return self.page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not there (Debian's package chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
    context.set_default_timeout(20_000)
    visit = Visit(context.new_page(), url)
    visit.page.on("request", lambda request: visit.requests.append(request.url))
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on("console", lambda line: visit.complaints.append(line.text) if line.type == "error" else None)
    yield visit
    context.close()
    assert [r for r in visit.requests if not r.startswith((url + "/", "data:"))] == [], "it asked another server"
    # a refused request is reported by Chromium itself; a fault of the page's or a break of its policy is not excused
    assert [c for c in visit.complaints if "status of 4" not in c] == []


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Visit]:
    with visiting(browser, server.url) as visit:
        yield visit


def answer(url: str, inputs: Sequence[str | list[str]], adapter: str) -> list[list[dict[str, Any]]]:
    """What the server itself says, asked beside the page."""
    body = json.dumps({"inputs": inputs, "parameters": {"adapter": adapter}}).encode()
    request = urllib.request.Request(url + "/predict", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def predict(page: Page, *lines: str) -> None:
    page.get_by_label("Texts").fill("\n".join(lines))
    page.get_by_role("button", name="Predict").click()
    count = len(lines)
    expect(page.get_by_role("status")).to_contain_text(f"{count} line{'' if count == 1 else 's'} in ")


def shown(page: Page) -> list[list[tuple[str, float]]]:
    """Labels and scores as drawn, one list per line of text."""
    return page.locator("#lines > li").evaluate_all(
        """lines => lines.map(line => [...line.querySelectorAll(".scores li")].map(row =>
            [row.querySelector(".name").textContent, Number(row.querySelector(".value").textContent)]))"""
    )


def assert_shows(page: Page, expected: list[list[dict[str, Any]]]) -> None:
    drawn = shown(page)
    assert [[label for label, _ in line] for line in drawn] == [[r["label"] for r in line] for line in expected]
    scores = [[r["score"] for r in line] for line in expected]
    for got, want in zip(drawn, scores, strict=True):
        assert [score for _, score in got] == pytest.approx(want, abs=1e-4)


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")


def test_a_line_is_predicted_by_keyboard_alone(visit: Visit) -> None:
    page = visit.open()
    stops = []
    while "texts" not in stops:
        page.keyboard.press("Tab")
        stops.append(focused(page))
        assert len(stops) < 10, stops
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid", f"no visible focus on {stops[-1]}"
    page.keyboard.type(GOOD)
    page.keyboard.press("Control+Enter")
    status = page.get_by_role("status")
    expect(status).to_have_text(re.compile(r"^1 line in [\d.,]+ ms by demo, version \S+$"))
    assert focused(page) == "texts"
    assert_shows(page, answer(visit.url, [GOOD], "demo"))

    page.keyboard.press("Control+A")
    page.keyboard.type(BAD)
    page.keyboard.press("Tab")
    assert focused(page) == "Predict"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=BAD)).to_be_visible()
    assert_shows(page, answer(visit.url, [BAD], "demo"))
    assert visit.complaints == []


def test_another_adapter_is_picked_by_name(visit: Visit) -> None:
    page = visit.open()
    adapter = page.get_by_label("Adapter")
    offered = page.locator("#names option").evaluate_all("options => options.map(o => o.value)")
    assert {"demo", "topics"} <= set(offered)
    adapter.press("ArrowDown")
    expect(adapter).to_have_value("")  # or the browser would offer nothing but "demo"
    adapter.press("Escape")
    expect(adapter).to_have_value("demo")
    adapter.fill("topics")
    predict(page, GOOD)
    expect(page.get_by_role("status")).to_contain_text("by topics")
    assert_shows(page, [answer(visit.url, [GOOD], "topics")[0][:5]])
    assert visit.complaints == []


def test_the_best_five_labels_come_first_and_the_rest_on_demand(visit: Visit) -> None:
    page = visit.open()
    scores = [{"label": f"label {i}", "score": 0.3 - i / 25} for i in range(7)]
    page.route("**/predict", lambda route: route.fulfill(json=[scores]))
    predict(page, GOOD)
    assert_shows(page, [scores[:5]])
    page.get_by_role("button", name="Show all 7 labels").press("Enter")
    assert_shows(page, [scores])
    fewer = page.get_by_role("button", name="Show the best 5")
    expect(fewer).to_be_focused()
    fewer.press("Enter")
    assert_shows(page, [scores[:5]])


def test_beyond_a_thousand_adapters_names_are_looked_up_while_typing(visit: Visit) -> None:
    page = visit.page
    names = ["demo", *(f"customer-{i:04d}" for i in range(1500))]

    def adapters(route: Route) -> None:
        asked = parse_qs(urlsplit(route.request.url).query)
        found = [n for n in sorted(names) if n.startswith(asked.get("prefix", [""])[0])][: int(asked["limit"][0])]
        facts = {"version": "1", "labels": None, "path": "", "loaded": False, "canary": None, "previous": None}
        route.fulfill(json={"default": "demo", "adapters": [{"name": name, **facts} for name in found]})

    page.route("**/adapters?*", adapters)
    visit.open()
    expect(page.locator("#names option[value='customer-1400']")).to_have_count(0)
    page.get_by_label("Adapter").fill("customer-14")
    expect(page.locator("#names option[value='customer-1400']")).to_have_count(1)
    expect(page.locator("#names option[value='demo']")).to_have_count(1)


@pytest.mark.parametrize("address", ["/models/raylora", "/models/raylora/"])
def test_it_works_behind_a_path_prefix(visit: Visit, address: str) -> None:
    page = visit.page

    def strip(route: Route) -> None:
        route.fulfill(response=route.fetch(url=visit.url + "/" + route.request.url.removeprefix(prefix).lstrip("/")))

    prefix = visit.url + "/models/raylora"
    page.route(prefix + "**", strip)
    page.goto(visit.url + address)
    expect(page.get_by_label("Adapter")).to_have_value("demo")
    predict(page, GOOD)
    assert f"'{prefix}/predict'" in (page.locator("#curl").text_content() or "")
    assert page.get_by_role("link", name="API reference").get_attribute("href") == prefix + "/docs"
    assert all(r.startswith((prefix, "data:")) for r in visit.requests)


def test_an_adapter_field_left_empty_takes_its_name_back(visit: Visit) -> None:
    page = visit.open()
    page.get_by_label("Adapter").click()
    page.get_by_label("Texts").click()
    expect(page.get_by_label("Adapter")).to_have_value("demo")


def test_each_line_is_a_text_and_blank_lines_are_none(visit: Visit) -> None:
    page = visit.open()
    lines = [GOOD, BAD, "مراجعة رائعة", "<img src=x onerror='window.broken = 1'><b>bold</b>"]
    page.get_by_label("Texts").fill(f"{lines[0]}\r\n\n{lines[1]}\n   \n{lines[2]}\n{lines[3]}\n")
    expect(page.get_by_text("4 lines, one text each")).to_be_visible()
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("status")).to_contain_text("4 lines in ")
    assert page.get_by_role("heading", level=3).all_inner_texts() == lines
    assert_shows(page, answer(visit.url, lines, "demo"))
    assert page.evaluate("window.broken") is None
    bars = page.locator(".best .bar i").evaluate_all("bars => bars.map(b => b.style.getPropertyValue('--share'))")
    assert [float(b) for b in bars] == pytest.approx([line[0][1] for line in shown(page)], abs=1e-4)


def test_no_text_is_said_without_asking_the_server(visit: Visit) -> None:
    page = visit.open()
    before = len(visit.requests)
    page.get_by_label("Texts").fill("  \n ")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_have_text("Type or paste at least one line of text.")
    assert focused(page) == "texts"
    expect(page.get_by_label("Texts")).to_have_attribute("aria-invalid", "true")
    assert len(visit.requests) == before
    predict(page, GOOD)
    expect(page.get_by_role("alert")).to_be_empty()


def test_the_servers_error_is_told_and_the_next_request_clears_it(visit: Visit) -> None:
    page = visit.open()
    page.get_by_label("Adapter").fill("nobody")
    page.get_by_label("Texts").fill(GOOD)
    page.get_by_role("button", name="Predict").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("nobody")
    expect(alert).to_contain_text("404")
    page.get_by_label("Adapter").fill("demo")
    predict(page, GOOD)
    expect(alert).to_be_empty()


@pytest.mark.parametrize(
    ("response", "told"),
    [
        (
            {"status": 429, "headers": {"retry-after": "7"}, "json": {"error": {"type": "Busy", "message": "full"}}},
            "7 s",
        ),
        ({"status": 413, "body": "<html>too large</html>"}, "The server answered 413"),
        ({"status": 200, "body": "[]"}, "does not fit"),
        ({"status": 200, "body": "<html>"}, "The server answered 200"),
        (None, "did not answer"),
    ],
)
def test_answers_of_no_use_are_told(visit: Visit, response: dict[str, Any] | None, told: str) -> None:
    page = visit.open()
    page.route("**/predict", lambda route: route.abort() if response is None else route.fulfill(**response))
    page.get_by_label("Texts").fill(GOOD)
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_contain_text(told)
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    visit.complaints[:] = [c for c in visit.complaints if "net::ERR_FAILED" not in c]


def test_a_key_is_asked_for_sent_and_kept_out_of_sight(visit: Visit) -> None:
    """The server under test wants none, so a door is put before it."""
    page = visit.page

    def door(route: Route) -> None:
        headers = dict(route.request.headers)
        if headers.pop("authorization", None) == "Bearer open-sesame":
            route.continue_(headers=headers)
        else:
            route.fulfill(status=401, json={"error": {"type": "Unauthorized", "message": "A key is needed."}})

    page.route(re.compile(r"/(adapters|predict|info)"), door)
    page.goto(visit.url)
    expect(page.get_by_role("alert")).to_contain_text("A key is needed.")
    key = page.get_by_label("API key")
    page.get_by_label("Texts").fill(GOOD)
    page.keyboard.press("Control+Enter")
    expect(key).to_be_focused()
    key.fill("open-sesame")
    key.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("1 line in ")
    expect(page.get_by_label("Adapter")).to_have_value("demo")
    expect(page.get_by_role("alert")).to_be_empty()
    assert "open-sesame" not in page.get_by_role("region", name="curl command").inner_text()
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.search]") == [
        0,
        0,
        "",
        "",
    ]
    page.reload()
    expect(key).to_have_value("")


def test_the_curl_command_gives_the_same_labels_in_a_shell(visit: Visit) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    page = visit.open()
    lines = ['It\'s "fine": $HOME `pwd` \\n !! %s', "naïve café 🙂", GOOD]
    page.get_by_label("Adapter").fill("topics")
    predict(page, *lines)
    command = page.locator("#curl").text_content() or ""
    assert f"'{visit.url}/predict'" in command
    (body,) = re.findall(r"-d '(.*)'$", command, re.S)
    assert json.loads(body.replace("'\\''", "'")) == {"inputs": lines, "parameters": {"adapter": "topics"}}
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert_shows(page, [line[:5] for line in json.loads(done.stdout)])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == command


def test_controls_and_parts_have_names(visit: Visit) -> None:
    page = visit.open()
    predict(page, GOOD, BAD)
    assert page.title() == "raylora: try an adapter"
    for role, name in [
        ("heading", "Try an adapter"),
        ("combobox", "Adapter"),
        ("textbox", "Texts"),
        ("button", "Predict"),
        ("region", "Labels and scores"),
        ("heading", "Labels and scores"),
        ("region", "curl command"),
        ("button", "Copy"),
        ("link", "API reference"),
    ]:
        expect(page.get_by_role(role, name=name, exact=True)).to_have_count(1)
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(h => h.tagName)")
    assert levels == ["H1", "H2", "H3", "H3", "H2"]
    assert page.get_by_role("link", name="API reference").get_attribute("href") == visit.url + "/docs"


def test_the_servers_policy_allows_the_page_nothing_but_its_own_server(visit: Visit) -> None:
    response = visit.page.goto(visit.url)
    assert response is not None
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert response.headers["content-type"].startswith("text/html")


CONTRASTS = """() => {
    const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (!/, 0\\)$/.test(colour)) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    return [...document.body.querySelectorAll("*")].filter((node) => node.checkVisibility()
        && [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim()) && node.tagName !== "SCRIPT")
        .map((node) => {
            const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => y - x);
            return [node.textContent.trim().slice(0, 40), (a + 0.05) / (b + 0.05)];
        });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_is_readable_light_and_dark_wide_and_narrow(
    browser: Browser, server: Server, scheme: str, width: int, tmp_path: Path
) -> None:
    """WCAG AA: 4.5 to 1 for every text; nothing to scroll sideways at 360 px (1.4.10)."""
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}, "reduced_motion": "reduce"}
    with visiting(browser, server.url, **look) as visit:
        page = visit.open()
        page.get_by_label("Adapter").fill("topics")
        predict(page, GOOD, BAD, "unbreakable" * 60)
        page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [(text, ratio) for text, ratio in page.evaluate(CONTRASTS) if ratio < 4.5] == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", ground)[0]) < 128) == (scheme == "dark")
        assert page.evaluate("document.getAnimations().length") == 0
        assert visit.complaints == []


def test_labels_that_are_decided_all_stand_out_and_none_is_said(visit: Visit) -> None:
    page = visit.open()
    page.get_by_label("Adapter").fill("moods")
    predict(page, GOOD, BAD)
    expected = answer(visit.url, [GOOD, BAD], "moods")
    assert_shows(page, expected)
    expect(page.locator(".scores .best")).to_have_count(sum(map(len, expected)))
    page.route("**/predict", lambda route: route.fulfill(json=[[]], headers={"x-adapter": "moods"}))
    predict(page, GOOD)
    expect(page.get_by_text("No label reaches its threshold.")).to_be_visible()
    assert visit.complaints == []


def test_a_number_is_shown_without_a_bar(visit: Visit) -> None:
    page = visit.open()
    page.get_by_label("Adapter").fill("stars")
    predict(page, GOOD, BAD)
    assert_shows(page, answer(visit.url, [GOOD, BAD], "stars"))
    expect(page.locator(".scores .bar")).to_have_count(0)
    expect(page.get_by_text("Numbers: stars.")).to_be_visible()
    page.route(
        "**/predict",
        lambda route: route.fulfill(json=[[{"label": "stars", "score": -1234.5}]], headers={"x-adapter": "stars"}),
    )
    predict(page, GOOD)
    assert shown(page) == [[["stars", -1234.5]]]


def test_an_adapter_of_pairs_gets_a_second_box_once_it_is_known(visit: Visit) -> None:
    page = visit.page
    expected = answer(visit.url, [[GOOD, BAD]], "pairs")

    def not_loaded(route: Route) -> None:
        listed = route.fetch().json()
        for each in listed["adapters"]:
            each.update(labels=None, task=None, pairs=None)
        route.fulfill(json=listed)

    page.route("**/adapters?*", not_loaded, times=1)
    visit.open()
    second = page.get_by_label("Second of each pair")
    page.get_by_label("Adapter").fill("pairs")
    page.get_by_label("Texts").fill(GOOD)
    expect(second).to_be_hidden()
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_contain_text("trained on pairs")
    expect(second).to_be_visible()
    second.fill("one\ntwo")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_contain_text("1 line, and 2 to pair them with")
    second.fill(BAD)
    predict(page, GOOD)
    assert page.get_by_role("heading", level=3).all_inner_texts() == [f"{GOOD} | {BAD}"]
    assert_shows(page, expected)
    page.get_by_label("Adapter").fill("demo")
    expect(second).to_be_hidden()
