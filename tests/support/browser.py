"""Chromium without a window, driven by its DevTools protocol."""

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
from pathlib import Path
from urllib.request import urlopen

from websockets.asyncio.client import connect

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = [
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-port=0",
]


class Page:
    """One tab. What it says on its console is kept; what it gives to `window.tell`, `hears` gets."""

    def __init__(self, socket, hears=None) -> None:
        self._socket = socket
        self._hears = hears
        self._replies = {}
        self._number = 0
        self.said = []
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            if "id" in message:
                self._replies.pop(message["id"]).set_result(message)
            elif message["method"] == "Runtime.bindingCalled":
                await self._hears(json.loads(message["params"]["payload"]))
            elif message["method"] == "Runtime.consoleAPICalled":
                self.said.append(" ".join(str(one.get("value")) for one in message["params"]["args"]))
            elif message["method"] == "Runtime.exceptionThrown":
                details = message["params"]["exceptionDetails"]
                self.said.append(
                    f"uncaught: {details.get('exception', {}).get('description', details['text'])}"
                )

    async def call(self, method, **parameters):
        """A command of the protocol."""
        self._number += 1
        reply = self._replies[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        answer = await asyncio.wait_for(reply, 60)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    async def open(self, url) -> None:
        """Go to an address, and wait until the page there has loaded."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def run(self, script):
        """The value of an expression, awaited if it is a promise."""
        found = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, script, seconds=30):
        """Wait until an expression is true; its value."""
        end = asyncio.get_running_loop().time() + seconds
        while True:
            with contextlib.suppress(AssertionError):  # the page is being replaced
                if value := await self.run(script):
                    return value
            if asyncio.get_running_loop().time() > end:
                text = await self.run("document.body.innerText")
                raise AssertionError(f"never true: {script}\nconsole: {self.said}\npage:\n{text}")
            await asyncio.sleep(0.02)

    async def picture(self, path, *, width=1000, height=700, dark=False) -> None:
        """Write a PNG of it."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = "dark" if dark else "light"
        await self.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        shot = await self.call("Page.captureScreenshot", format="png")
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    async def close(self) -> None:
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)


class Browser:
    """A running Chromium."""

    def __init__(self, folder) -> None:
        self._folder = Path(folder)
        self._process = subprocess.Popen(
            [PROGRAM, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def _port(self) -> int:
        path = self._folder / "DevToolsActivePort"
        for _ in range(1500):
            if path.exists() and (text := path.read_text()):
                return int(text.split()[0])
            assert self._process.poll() is None, "chromium ended"
            await asyncio.sleep(0.02)
        raise AssertionError("chromium does not start")

    @contextlib.asynccontextmanager
    async def page(self, url=None, hears=None):
        """A tab of its own."""
        port = await self._port()

        def tabs():
            with urlopen(f"http://127.0.0.1:{port}/json/version", timeout=30) as answer:
                return json.load(answer)["webSocketDebuggerUrl"]

        async with connect(await asyncio.to_thread(tabs), max_size=None, proxy=None) as socket:
            whole = Page(socket)
            target = (await whole.call("Target.createTarget", url="about:blank"))["targetId"]
            async with connect(
                f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=None, proxy=None
            ) as own:
                page = Page(own, hears)
                await page.call("Page.enable")
                await page.call("Runtime.enable")
                await page.call("Runtime.addBinding", name="tell")
                try:
                    if url is not None:
                        await page.open(url)
                    yield page
                finally:
                    await page.close()
            await whole.call("Target.closeTarget", targetId=target)
            await whole.close()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
