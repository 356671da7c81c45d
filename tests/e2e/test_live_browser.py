"""Live in Chromium: native WebSocket and EventSource, centrifuge-js, and the pages of the examples."""

import asyncio
import json
import shutil
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from test_live_examples import example, mounted
from test_live_js import MODULES

from support.browser import PROGRAM, Browser
from support.centrifuge_js import CHAT, CentrifugeJs, JsClient
from support.live import token
from support.needed import absent, needs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FOLLOW, LISTEN, _ = (
    block.partition("```")[0]
    for block in (ROOT / "docs" / "live.md").read_text().split("```javascript\n")[1:]
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def served(folder):
    """A folder as a site of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A page with centrifuge-js, and the functions of docs/live.md."""
    if not (MODULES / "centrifuge").is_dir():
        absent("centrifuge-js (scripts/servers.sh)")
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(MODULES / "centrifuge" / "dist" / "centrifuge.js", folder)
    shutil.copy(ROOT / "tests" / "node" / "live_client.js", folder)
    (folder / "live.js").write_text(FOLLOW + LISTEN)
    scripts = "".join(f'<script src="{name}.js"></script>' for name in ("centrifuge", "live_client", "live"))
    (folder / "index.html").write_text(
        f'<!doctype html><link rel="icon" href="data:,"><title>.</title>{scripts}'
    )
    with served(folder) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if PROGRAM is None:
        absent("Chromium (scripts/servers.sh slow)")
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


# ── centrifuge-js ───────────────────────────────────────────────────────────────


class BrowserClient(JsClient):
    """A client in a tab of its own."""

    async def start(self, page) -> None:
        self._page = page
        await page.run("window.act = liveClient(Centrifuge, (message) => tell(JSON.stringify(message))); 1")

    async def act(self, name, **options):
        return await self._page.run(f"act({json.dumps(name)}, {json.dumps(options)})")


@pytest.fixture
async def js(browser, site):
    async with AsyncExitStack() as stack:

        async def start():
            client = BrowserClient()
            await client.start(await stack.enter_async_context(browser.page(site, client.heard)))
            return client

        yield start


class TestChromium(CentrifugeJs):
    """In Chromium."""


# ── without a library ───────────────────────────────────────────────────────────

CONFIG = {"client": {"allowed_origins": ["*"]}, "channel": {"namespaces": [{"name": "chat", **CHAT}]}}
BEGIN = """
window.seen = []; window.ends = []; window.waits = [];
const later = window.setTimeout;
window.setTimeout = (work, time) => { waits.push(time); return later(work, time / 10); };
"""


async def readers(gateway, channel):
    while not gateway.api("presence_stats", channel=channel)["num_clients"]:
        await asyncio.sleep(0.02)


async def test_a_plain_websocket_with_pauses_that_grow(browser, site, gateways):
    gateway = gateways(CONFIG)
    async with browser.page(site) as page:
        call = f"listen('{gateway.ws}/ws/chat:1', async () => '{token('ada')}', (d) => seen.push(d), (...e) => ends.push(e))"
        await page.run(f"{BEGIN}; window.live = {call}; 1")
        await readers(gateway, "chat:1")
        gateway.publish("chat:1", {"n": 1})
        await page.until("seen.length === 1")
        await page.run("live.send(JSON.stringify({n: 2})); 1")
        await page.until("seen.length === 2")
        assert [json.loads(one) for one in await page.run("seen")] == [{"n": 1}, {"n": 2}]
        gateway.kill()
        waits = await page.until("waits.length >= 5 && waits")
        for wait, most in zip(waits, (1000, 2000, 4000, 8000, 8000), strict=False):
            assert most / 2 <= wait <= most
        await asyncio.to_thread(gateway.start)
        await readers(gateway, "chat:1")
        gateway.api("disconnect", user="ada")
        assert await page.until("ends.length && ends") == [[3503, "force disconnect"]]


async def test_the_page_sees_why_it_was_refused(browser, site, gateways):
    gateway = gateways(CONFIG)
    async with browser.page(site) as page:
        call = f"listen('{gateway.ws}/ws/chat:1', async () => 'bad', (d) => seen.push(d), (...e) => ends.push(e))"
        await page.run(f"{BEGIN}; window.live = {call}; 1")
        assert await page.until("ends.length && ends") == [[4001, "bad token"]]


async def test_a_page_of_another_host_is_kept_out(browser, site, gateways):
    gateway = gateways({**CONFIG, "client": {}})
    async with browser.page(site) as page:
        script = f"""new Promise((done) => {{
          const socket = new WebSocket('{gateway.ws}/ws/chat:1?token={token("ada")}');
          socket.onopen = () => done('open'); socket.onclose = (event) => done(event.code);
        }})"""
        assert await page.run(script) == 1006


@pytest.mark.parametrize("how", ["by itself", "by the page"])
async def test_an_event_source_gets_what_it_missed_when_the_gateway_was_killed(
    how, browser, site, gateways, redis
):
    """By itself it names the last event in a header; a page that opens a new one does so in the query."""
    here, other = (gateways(CONFIG, "--broker", redis.url) for _ in range(2))
    channel = f"chat:{how.replace(' ', '-')}"
    async with browser.page(site) as page:
        await page.run(f"{BEGIN}; 1")
        if how == "by itself":
            await page.run(
                f"""window.source = new EventSource('{here.url}/sse/{channel}?token={token("ada")}');
                source.onmessage = (event) => seen.push(JSON.parse(event.data));
                source.addEventListener('missed', () => ends.push('missed')); 1"""
            )
        else:
            await page.run(
                f"""let given = 0;
                const tokens = async () => given++ === 1 ? 'bad' : '{token("ada")}';
                const RealSource = EventSource;
                window.EventSource = function (url) {{ return window.source = new RealSource(url); }};
                window.EventSource.CLOSED = 2;
                follow('{here.url}/sse/{channel}', tokens, (d) => seen.push(d), () => ends.push('missed')); 1"""
            )
        await page.until("window.source?.readyState === 1")  # answered: it is a member, not only present
        other.publish(channel, {"n": 1})
        await page.until("seen.length === 1")
        here.kill()
        await page.until("source.readyState === 0")
        other.publish(channel, {"n": 2})
        if how == "by the page":
            await page.run("source.close(); source.onerror(); 1")
        await asyncio.to_thread(here.start)
        await page.until("seen.length === 2", 60)
        other.publish(channel, {"n": 3})
        await page.until("seen.length === 3")
        assert await page.run("seen.map((one) => one.n)") == [1, 2, 3]
        here.api("disconnect", user="ada")
        other.publish(channel, {"n": 4})
        other.api("history_remove", channel=channel)
        assert await page.until("ends.length && ends") == ["missed"]


# ── the examples' pages ─────────────────────────────────────────────────────────


async def test_the_chats_page_also_while_redis_is_dead(browser):
    needs("redis")
    with example("chat_two_nodes") as (_, url):
        async with browser.page(url) as page:
            await page.until("sides.every((side) => side.here.size === 2)")
            sent = "document.querySelectorAll('li:not(.waits)').length"
            await type_in(page, 0, "Hello Grace")
            await page.until(f"{sent} === 2")
            await page.run("document.querySelector('#kill').click()")
            await page.until("document.querySelector('#told').textContent.includes('dead')")
            await type_in(page, 1, "Hello Ada")
            await page.until(f"{sent} === 4", 60)
            lists = "[...document.querySelectorAll('ol')].map((list) => list.innerText.split('\\n'))"
            assert await page.run(lists) == [
                ["Hello Grace", "Grace: Hello Ada"],
                ["Ada: Hello Grace", "Hello Ada"],
            ]
            await page.open(url)
            await page.until(f"{sent} === 4")
            assert await page.run(lists) == [
                ["Hello Grace", "Grace: Hello Ada"],
                ["Ada: Hello Grace", "Hello Ada"],
            ]
            assert page.said == []


async def type_in(page, number, text):
    """As its user does."""
    script = f"(form => {{ form.elements[0].value = {json.dumps(text)}; form.requestSubmit(); }})"
    await page.run(f"{script}(document.querySelectorAll('form')[{number}])")


async def test_the_tickers_page(browser):
    with example("ticker") as (_, url):
        async with browser.page(url) as page:
            await page.until("tables.every((table) => table.events > 5)")
            await page.until("tables[0].part.innerText.slice(-90) === tables[1].part.innerText.slice(-90)")
            await page.run("document.querySelectorAll('h2 button').forEach((button) => button.click())")
            await page.until("document.querySelectorAll('.connected').length === 0")
            await page.until("document.querySelectorAll('.connected').length === 2")
            assert page.said == []


async def test_the_page_inside_fastapi(browser):
    with mounted() as (_, port):
        url = f"http://127.0.0.1:{port}/"
        async with browser.page(url) as one, browser.page(url) as two:
            for page in (one, two):
                await page.until("document.body.classList.contains('connected')")
            await one.run("form.dish.value = 'Baklava'; form.requestSubmit()")
            for page in (one, two):
                await page.until("list.innerText.includes('Baklava')")
                assert await page.run("list.children.length") == 1
            assert one.said == two.said == []
