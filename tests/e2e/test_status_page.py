"""The status page of `yelpaze monitor run` in Chromium: what it shows, how it follows, how it looks."""

import asyncio
import json
import sqlite3
import time
from contextlib import asynccontextmanager, closing

import pytest

from support.browser import PROGRAM, Browser
from support.monitor_service import TOKEN, MonitorService, Site
from support.needed import absent, needs
from support.ports import free_port
from support.waiting import until
from yelpaze.monitor.check import id_of
from yelpaze.monitor.tables import BUCKETS

pytestmark = pytest.mark.slow
needs("yaml", "fastapi", "uvicorn", "httptools", "jinja2", "jwt", "cryptography")

DAY = 86_400_000
WIDTHS = (360, 768, 1280)
AT_ONCE = {"type": "webhook", "failure-threshold": 1, "success-threshold": 1, "send-on-resolved": True}
SCRIPT = "<script>window.hacked = 1</script>"
IMAGE = "'><img src=x onerror=window.hacked=1>"
LONG = "an-endpoint-whose-name-is-one-word-of-many-letters-that-cannot-be-broken-anywhere-at-all"
TARGETS = 250
# What goes wrong is kept from the first line of each document on.
WATCH = """
window.wrong = [];
addEventListener("securitypolicyviolation", (event) =>
  wrong.push(`policy: ${event.violatedDirective} ${event.blockedURI}`));
addEventListener("error", (event) =>
  wrong.push(`error: ${event.message || event.target.src || event.target.href}`), true);
addEventListener("unhandledrejection", (event) => wrong.push(`rejected: ${event.reason}`));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if PROGRAM is None:
        absent("Chromium (scripts/servers.sh slow)")
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def site():
    site = Site()
    for path in ("/broken", "/doubtful"):
        site.switch(path)
    site.switch("/evil", (200, IMAGE.encode()))
    yield site
    site.stop()


def settings_of(site, **api):
    endpoint = site.endpoint
    return {
        "ui": {"title": "Acme & 'sons'", "header": "Acme <status>", "description": 'Our "services"'},
        "api": {"token": TOKEN, **api},
        "alerting": {"webhook": {"url": f"{site.url}/hook"}},
        "endpoints": [
            endpoint("web", "core"),
            endpoint("broken", "core", alerts=[AT_ONCE]),
            endpoint("flip", "core", alerts=[AT_ONCE]),
            endpoint("other", "core", alerts=[AT_ONCE]),
            {**endpoint("named", IMAGE), "name": SCRIPT},
            endpoint("evil", "shop", conditions=["[BODY] == ok"], alerts=[AT_ONCE]),
            {**endpoint("long", "shop"), "name": LONG, "url": f"{site.url}/long?{'x' * 200}"},
            {**endpoint("gone", "shop"), "url": "http://127.0.0.1:1/"},
            endpoint("off", enabled=False),
        ],
        "external-endpoints": [{"name": "backup", "token": "x", "heartbeat": {"interval": "1h"}}],
    }


@pytest.fixture(scope="module")
def monitor(site, tmp_path_factory):
    monitor = MonitorService(tmp_path_factory.mktemp("monitor"), settings_of(site))
    monitor.until_status("core_web", "up")
    for key in ("core_broken", "shop_evil", "shop_gone"):
        monitor.until_status(key, "down")
    remember(monitor, "core_web")
    yield monitor
    monitor.close()


def remember(monitor, key):
    """Ninety days of results of a check: good ones, a day with a few bad ones, one with many, one with none."""
    now = int(time.time() * 1000)
    today = now - now % DAY
    with closing(sqlite3.connect(monitor.folder / "monitor.db", timeout=60)) as connection, connection:
        for ago in range(1, 90):
            if ago == 30:
                continue
            bad = {10: 20, 20: 300}.get(ago, 0)
            counts = [1440 - bad if name == "h9" else 0 for name in BUCKETS]
            row = ("d", id_of(key), "local", today - ago * DAY, 1440 - bad, bad, 1440 * 70_000, *counts)
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT OR REPLACE INTO rollup VALUES ({marks})", row)


@pytest.fixture(scope="module")
def large(site, tmp_path_factory):
    """A monitor of 250 targets of five groups, each looked at once."""
    folder = tmp_path_factory.mktemp("large")
    rows = [f"service {n:03},group {n // 50},{site.url}/many/{n}" for n in range(TARGETS)]
    (folder / "targets.csv").write_text("\n".join(["name,group,url", *rows]))
    targets = {"file": "targets.csv", "interval": "1h", "conditions": ["[STATUS] == 200"]}
    monitor = MonitorService(folder, {"targets": [targets]})
    until(lambda: all(one["status"] == "up" for one in monitor.get("endpoints?limit=1000")["data"]))
    yield monitor
    monitor.close()


@asynccontextmanager
async def opened(browser, monitor, path="/", *, is_well=True):
    """A page of a monitor, in which nothing may go wrong, unless the monitor does."""
    failure = None
    async with browser.page() as page:
        try:
            await page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
            await page.open(f"{monitor.url}{path}")
            yield page
            assert await page.run("window.hacked") is None
            assert not is_well or [*await page.run("window.wrong"), *page.said] == []
        except Exception as error:  # the browser's page closes as it should only without one
            failure = error
    if failure is not None:
        raise failure


async def texts(page, selector):
    return await page.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.innerText)"
    )


def check(name):
    """The list item of a check, as an expression."""
    return f"[...document.querySelectorAll('.checks li')].find((one) => one.querySelector('a').innerText === {json.dumps(name)})"


def state(name):
    return f"{check(name)}.querySelector('.state').innerText"


async def in_thread(work, *arguments):
    return await asyncio.to_thread(work, *arguments)


# ── what it shows ───────────────────────────────────────────────────────────────


async def test_groups_states_bars_and_incidents(browser, monitor):
    async with opened(browser, monitor) as page:
        assert await page.run("document.title") == "Acme & 'sons'"
        assert await texts(page, ".brand") == ["Acme <status>"]
        description = "document.querySelector('meta[name=description]').content"
        assert await page.run(description) == 'Our "services"'
        assert await texts(page, "summary h2") == ["core", IMAGE, "shop", "Services"]
        assert await texts(page, "h1") == ["3 services are down"]
        for name, shown in (("web", "up"), ("broken", "down"), ("gone", "down"), ("off", "no data")):
            assert await page.run(state(name)) == shown
        groups = await texts(page, "summary .state")
        assert groups == ["down", "up", "down", "no data"]
        bars = await page.run(f"[...{check('web')}.querySelectorAll('.bars i')].map((one) => one.className)")
        assert len(bars) == 90
        found = {89 - n: shown for n, shown in enumerate(bars)}
        assert (found[10], found[20], found[30], found[40], found[89]) == ("fair", "down", "none", "up", "up")
        titles = await page.run(f"[...{check('web')}.querySelectorAll('.bars i')].map((one) => one.title)")
        assert titles[89 - 20].endswith(": 79.16 % up")
        assert titles[89 - 30].endswith(": no results")
        assert await page.run(f"{check('off')}.querySelector('.uptime').innerText") == "no results yet"
        assert (await page.run(f"{check('web')}.querySelector('.uptime').innerText")).endswith(" % up")
        open_ones = await texts(page, ".incident.down h3 a")
        assert set(open_ones) >= {"core / broken", "shop / evil", "shop / gone"}
        steps = await page.run(
            "[...document.querySelectorAll('.incident')].find((one) => one.innerText.includes('core / broken'))"
            ".innerText"
        )
        assert "Down: confirmed by 1 check from local" in steps
        assert "First failure from local: [STATUS] (500) == 200" in steps


async def test_one_check_is_not_checks(browser, monitor):
    async with opened(browser, monitor) as page:
        assert "1 checks" not in await page.run("document.body.innerText")


async def test_it_changes_by_itself_without_a_reload(browser, monitor, site):
    async with opened(browser, monitor) as page:
        await page.until("document.getElementById('live').innerText === 'live'")
        await page.until(f"{state('flip')} === 'up'")
        await page.run("window.mark = 1")
        site.switch("/flip", 503)
        await page.until(f"{state('flip')} === 'down'", 20)
        assert "core / flip" in await texts(page, ".incident.down h3 a")
        assert await texts(page, "h1") == ["4 services are down"]
        site.switch("/flip", 200)
        await page.until(f"{state('flip')} === 'up'", 20)
        past = "[...document.querySelectorAll('section')].pop().innerText"
        await page.until(f"{past}.includes('core / flip')")
        assert await texts(page, "h1") == ["3 services are down"]
        assert await page.run("window.mark") == 1
        assert await page.run("performance.getEntriesByType('navigation').length") == 1


async def test_all_that_it_loads_is_its_own_and_there(browser, monitor):
    for path in ("/", "/endpoints/core_web"):
        async with opened(browser, monitor, path) as page:
            await page.until("document.getElementById('live').innerText === 'live'")
            loaded = await page.run(
                "performance.getEntriesByType('resource').map((one) => [one.name, one.responseStatus])"
            )
            names = {name.removeprefix(monitor.url) for name, _ in loaded}
            assert {"/assets/style.css", "/assets/live.js"} <= names
            assert all(name.startswith(monitor.url) for name, _ in loaded)
            assert all(status in (0, 200) for _, status in loaded)  # 0: it goes on


def test_the_policy_lets_nothing_foreign_in(monitor):
    for path in ("/", "/endpoints/core_web"):
        headers = monitor.ask("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "script-src 'self';" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"


# ── names, errors, URLs ─────────────────────────────────────────────────────────


async def test_names_and_what_sites_answer_are_texts(browser, monitor):
    incident = monitor.until_incident("core_broken", lambda one: True)["id"]
    monitor.operate("POST", f"incidents/{incident}/ack", {"by": SCRIPT, "comment": IMAGE})
    await in_thread(until, lambda: monitor.get(f"incidents/{incident}")["acknowledgedAt"])
    key = next(one["key"] for one in monitor.get("endpoints")["data"] if one["name"] == SCRIPT)
    async with opened(browser, monitor) as page:
        assert SCRIPT in await texts(page, ".checks a")
        assert IMAGE in await texts(page, "summary h2")
        text = await page.run("document.body.innerText")
        assert f"[BODY] ({IMAGE}) == ok" in text
        assert f"Acknowledged by {SCRIPT}: {IMAGE}" in text
        assert await page.run("document.querySelectorAll('img').length") == 0
        assert await page.run("document.scripts.length") == 1
        await page.run(f"{check(SCRIPT)}.querySelector('a').click()")
        await page.until("location.pathname.startsWith('/endpoints/')")
        await page.until("document.readyState === 'complete'")
        assert await texts(page, "h1") == [f"{IMAGE} / {SCRIPT}"]
        assert await page.run("document.title") == f"{IMAGE} / {SCRIPT} \N{EN DASH} Acme & 'sons'"
        assert await page.run("decodeURIComponent(location.pathname)") == f"/endpoints/{key}"
        assert await page.run("document.querySelectorAll('img').length") == 0


def test_urls_are_shown_only_where_they_are_to_be_shown(monitor, site, tmp_path):
    paths = ("/", "/endpoints/core_web", "/endpoints/core_broken")
    for path in paths:
        for headers in ({}, {"X-Part": "main"}):
            text = monitor.ask("GET", path, headers=headers).text
            assert site.url not in text
            assert site.url.removeprefix("http://") not in text
    shown = MonitorService(tmp_path, settings_of(site, show_urls=True))
    try:
        assert f"{site.url}/web" in shown.ask("GET", "/").text
        assert f"{site.url}/web" in shown.ask("GET", "/endpoints/core_web").text
    finally:
        shown.close()


def test_a_host_that_is_hidden_is_not_in_errors(tmp_path, site):
    hidden = {"hide-url": True, "hide-hostname": True, "hide-port": True}
    gone = {**site.endpoint("gone"), "url": "http://127.0.0.1:1/", "ui": hidden}
    monitor = MonitorService(tmp_path, {"endpoints": [gone]})
    try:
        monitor.until_status("_gone", "down")
        for path in ("/", "/endpoints/_gone", "/api/v1/incidents", "/api/v1/endpoints"):
            assert "127.0.0.1" not in monitor.ask("GET", path).text
    finally:
        monitor.close()


# ── how it looks ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("name", "path"),
    [("index", "/"), ("up", "/endpoints/core_web"), ("down", "/endpoints/shop_gone")],
)
async def test_nothing_is_wider_than_the_window(browser, monitor, tmp_path, name, path, width, dark):
    async with opened(browser, monitor, path) as page:
        await page.until("document.getElementById('live').innerText === 'live'")
        for _ in range(2):  # the second time as high as it is
            height = await page.run("document.documentElement.scrollHeight")
            await page.picture(tmp_path / f"{name}.png", width=width, height=height, dark=dark)
        assert await page.run("innerWidth") == width
        assert await page.run("document.documentElement.scrollWidth") <= width
        colours = await page.run(
            "[document.body, document.querySelector('h1')]"
            ".map((one, n) => getComputedStyle(one)[n ? 'color' : 'backgroundColor'])"
        )
        page_light, text_light = (lightness(one) for one in colours)
        assert (page_light < 0.2 and text_light > 0.8) if dark else (page_light > 0.8 and text_light < 0.2)


async def test_results_are_rows_of_few_lines_on_a_telephone(browser, monitor, tmp_path):
    async with opened(browser, monitor, "/endpoints/shop_gone") as page:
        await page.picture(tmp_path / "rows.png", width=360)
        heights = await page.run("[...document.querySelectorAll('tr')].map((one) => one.offsetHeight)")
        assert max(heights) <= 80


def lightness(colour):
    """0 to 1, of `rgb(…)`."""
    parts = [int(one) for one in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True)) / 255


CONTRAST = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
    .map((one) => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, n) => sum + one * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const one of document.querySelectorAll("body *")) {
    if (![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    if (!one.getClientRects().length || getComputedStyle(one).visibility === "hidden") continue;
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const name = `${one.tagName.toLowerCase()}.${one.className}`;
    if (ratio < 4.5) found[name] = Math.round(ratio * 100) / 100;
  }
  return found;
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_texts_can_be_read(browser, monitor, tmp_path, dark):
    """WCAG's AA: a contrast of 4.5."""
    async with opened(browser, monitor) as page:
        await page.picture(tmp_path / "contrast.png", width=1280, dark=dark)
        assert await page.run(CONTRAST) == {}


# ── by keyboard ─────────────────────────────────────────────────────────────────


async def press(page, key, code, text=""):
    given = {"key": key, "code": key, "windowsVirtualKeyCode": code, "text": text}
    for kind in ("keyDown", "keyUp"):
        await page.call("Input.dispatchKeyEvent", type=kind, **given)


FIRST = "document.querySelector('details')"
FOCUSED = "document.activeElement.tagName + ' ' + document.activeElement.innerText"


async def to_first_group(page):
    """Press Tab until the first group has the focus."""
    for _ in range(40):
        await press(page, "Tab", 9)
        if (await page.run("document.activeElement.tagName")) == "SUMMARY":
            return
    raise AssertionError(await page.run(FOCUSED))


async def test_groups_are_closed_and_opened_by_keyboard(browser, monitor, site):
    async with opened(browser, monitor) as page:
        await page.until("document.getElementById('live').innerText === 'live'")
        await to_first_group(page)
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert await page.run(outline) != "none"
        assert await page.run(f"{FIRST}.open") is True
        await press(page, "Enter", 13, "\r")
        assert await page.run(f"{FIRST}.open") is False
        assert await page.run("document.querySelector('.checks').checkVisibility()") is False
        # It stays closed when the page follows.
        count = len(await texts(page, ".incident"))
        site.switch("/other", 503)
        await page.until(f"document.querySelectorAll('.incident').length > {count}", 20)
        assert await page.run(f"{FIRST}.open") is False
        site.switch("/other", 200)
        await in_thread(monitor.until_status, "core_other", "up")


async def test_a_service_is_opened_by_keyboard(browser, monitor):
    async with opened(browser, monitor) as page:
        await to_first_group(page)
        await press(page, "Tab", 9)
        assert await page.run(FOCUSED) == "A web"
        await press(page, "Enter", 13, "\r")
        await page.until("location.pathname === '/endpoints/core_web'")
        await page.until("document.querySelector('h1')?.innerText === 'core / web'")


async def test_the_focus_stays_where_it_is(browser, monitor, site):
    async with opened(browser, monitor) as page:
        await page.until("document.getElementById('live').innerText === 'live'")
        await to_first_group(page)
        count = len(await texts(page, ".incident"))
        site.switch("/other", 503)
        try:
            await page.until(f"document.querySelectorAll('.incident').length > {count}", 20)
            assert (await page.run("document.activeElement.tagName")) == "SUMMARY"
        finally:
            site.switch("/other", 200)
            await in_thread(monitor.until_status, "core_other", "up")


# ── the page of an endpoint ─────────────────────────────────────────────────────


async def test_the_page_of_an_endpoint(browser, monitor):
    async with opened(browser, monitor, "/endpoints/core_web") as page:
        assert await texts(page, "h1") == ["core / web"]
        periods = await page.run(
            "[...document.querySelectorAll('table')[0].rows].map((row) => [...row.cells].map((one) => one.innerText))"
        )
        assert periods[0] == ["Period", "Uptime", "Average", "95 %"]
        assert [row[0] for row in periods[1:]] == ["1h", "24h", "7d", "30d", "90d"]
        assert periods[-1][1].startswith("99.")
        assert periods[-1][2].endswith(" ms")
        results = await page.run(
            "[...document.querySelectorAll('table')[1].rows].map((row) => [...row.cells].map((one) => one.innerText))"
        )
        assert results[0] == ["Time", "Location", "Result", "Status", "Took", "Failed"]
        assert results[1][1:4] == ["local", "up", "200"]
        assert (await texts(page, ".empty")) == ["None."]
        await page.run("document.querySelector('.back a').click()")
        await page.until("location.pathname === '/' && !!document.querySelector('.checks')")
    async with opened(browser, monitor, "/endpoints/shop_gone") as page:
        text = await page.run("document.body.innerText")
        assert "Failed to connect to 127.0.0.1" in text
        assert len(await texts(page, ".incident.down")) == 1
    async with opened(browser, monitor, "/endpoints/_off") as page:
        assert "None yet." in await page.run("document.body.innerText")


async def test_the_page_of_an_endpoint_follows_too(browser, monitor, site):
    async with opened(browser, monitor, "/endpoints/core_other") as page:
        await page.until("document.getElementById('live').innerText === 'live'")
        await page.run("window.mark = 1")
        site.switch("/other", 503)
        await page.until("document.querySelectorAll('.incident.down').length === 1", 20)
        await page.until("document.querySelector('.overall').classList.contains('down')")
        site.switch("/other", 200)
        await page.until("document.querySelectorAll('.incident.down').length === 0", 20)
        assert await page.run("window.mark") == 1


async def test_the_page_of_an_endpoint_says_whether_it_is_up(browser, monitor):
    async with opened(browser, monitor, "/endpoints/shop_gone") as page:
        assert "down" in await page.run("document.querySelector('.overall').innerText")


# ── many ────────────────────────────────────────────────────────────────────────


async def test_pages_of_many_services(browser, large):
    async with opened(browser, large) as page:
        assert len(await texts(page, ".checks li")) == 100
        assert await texts(page, ".pages span") == ["Page 1 of 3"]
        assert await texts(page, ".pages a") == ["Next"]
        assert await texts(page, "summary h2") == ["group 0", "group 1"]
        await page.run("document.querySelector('.pages a').click()")
        await page.until("document.querySelector('.pages span')?.innerText === 'Page 2 of 3'")
        assert (await texts(page, ".checks a"))[0] == "service 100"
        assert await texts(page, ".pages a") == ["Previous", "Next"]
        await page.open(f"{large.url}/?page=3")
        await page.until("document.querySelector('.pages span')?.innerText === 'Page 3 of 3'")
        assert len(await texts(page, ".checks li")) == 50
        assert await texts(page, ".pages a") == ["Previous"]
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")


async def test_services_are_searched_for(browser, large):
    async with opened(browser, large) as page:
        await page.run("document.querySelector('.search input').focus()")
        placeholder = await page.run("document.querySelector('.search input').placeholder")
        assert placeholder == "Search 250 services"
        await page.call("Input.insertText", text="SERVICE 12")
        await press(page, "Enter", 13, "\r")
        await page.until("document.querySelectorAll('.checks li').length === 10")
        assert (await texts(page, ".checks a"))[0] == "service 120"
        assert await page.run("document.querySelector('.search input').value") == "SERVICE 12"
        await page.open(f"{large.url}/?q=group+4&page=1")
        await page.until("document.querySelectorAll('.checks li').length === 50")
        await page.open(f"{large.url}/?q=%3Cb%3Enothing%3C%2Fb%3E")
        await page.until("document.querySelector('.empty')?.innerText === 'No service matches.'")
        assert await page.run("document.querySelector('.search input').value") == "<b>nothing</b>"


async def test_a_search_goes_over_pages(browser, large):
    async with opened(browser, large, "/?q=service&page=2") as page:
        assert await texts(page, ".pages span") == ["Page 2 of 3"]
        await page.run("document.querySelector('.pages a').click()")
        await page.until("document.querySelector('.pages span')?.innerText === 'Page 1 of 3'")
        assert await page.run("new URLSearchParams(location.search).get('q')") == "service"


async def test_the_search_says_how_many_services_there_are(browser, large):
    async with opened(browser, large, "/?q=service+12") as page:
        placeholder = await page.run("document.querySelector('.search input').placeholder")
        assert placeholder == "Search 250 services"


async def test_a_page_beyond_the_last_is_the_last(browser, large):
    async with opened(browser, large, "/?page=9") as page:
        assert await texts(page, ".pages span") == ["Page 3 of 3"]


# ── when the monitor is away ────────────────────────────────────────────────────


@pytest.fixture
def lonely(site, tmp_path):
    """A monitor of a test's own, at a port that stays."""
    port = free_port()
    monitor = MonitorService(tmp_path, {"endpoints": [site.endpoint("web")]})
    monitor.stop()
    monitor.start(f"127.0.0.1:{port}")
    monitor.until_status("_web", "up")
    yield monitor
    monitor.close()


async def test_it_finds_back_to_a_monitor_that_was_away(browser, lonely):
    live = "document.getElementById('live').innerText"
    async with opened(browser, lonely, is_well=False) as page:
        await page.until(f"{live} === 'live'")
        await in_thread(lonely.kill)
        await page.until(f"{live} === 'reconnecting'")
        await in_thread(lonely.start, lonely.url.removeprefix("http://"))
        await page.until(f"{live} === 'live'")


async def test_it_shows_what_is_new_when_it_has_found_back(browser, lonely, site):
    live = "document.getElementById('live').innerText"
    async with opened(browser, lonely, is_well=False) as page:
        await page.until(f"{live} === 'live'")
        await in_thread(lonely.kill)
        await page.until(f"{live} === 'reconnecting'")
        lonely.write({"endpoints": [site.endpoint("web"), site.endpoint("more")]})
        await in_thread(lonely.start, lonely.url.removeprefix("http://"))
        await page.until(f"{live} === 'live'")
        await page.until(f"!!{check('more')}", 10)
