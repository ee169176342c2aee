"""Headless Chromium, driven over its DevTools protocol: fixture `browser`, pages with what they asked for and said."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-pings",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
)
"""Nothing of its own may leave the machine; names besides 127.0.0.1 do not resolve."""


class Page:
    """One tab: `requests` (URLs asked for) and `complaints` (errors, refused by the policy, exceptions)."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._browser.call(method, self._session, **params)

    async def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        """Go there and wait for its load event."""
        await self.resize(width, height)
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def resize(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700
        )

    async def run(self, script: str) -> Any:
        """The value of an expression (a promise is awaited). Raises RuntimeError with the page's exception."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "exception"))
        return answer["result"].get("value")

    async def until(self, condition: str, seconds: float = 10.0) -> Any:
        """Wait until the expression is true (an element is); its value is returned."""
        end = time.monotonic() + seconds
        while (value := await self.run(condition)) in (None, False, "", 0):
            if time.monotonic() > end:
                raise AssertionError(f"not true within {seconds} s: {condition}; the page said {self.complaints}")
            await asyncio.sleep(0.05)
        return value

    async def type(self, selector: str, text: str) -> None:
        """Put the cursor into a field, empty it, and type."""
        await self.run(f"(() => {{ const e = document.querySelector({selector!r}); e.focus(); e.select(); }})()")
        await self.call("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        box = await self.run(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    async def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))

    def heard(self, method: str, params: dict[str, Any]) -> None:
        """An event of this tab."""
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {params['message']}")


class Browser:
    """A connection to a running Chromium."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._targets: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def page(self) -> Page:
        """A new, empty tab with a profile of its own."""
        context = await self.call("Target.createBrowserContext")
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context["browserContextId"])
        self._targets.append(context["browserContextId"])
        session = (await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True))["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            await page.call(f"{domain}.enable")
        return page

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One call of the DevTools protocol; RuntimeError with its message where it fails."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(message)
        answer = await asyncio.wait_for(future, 20)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    async def close(self) -> None:
        for context in self._targets:
            await self.call("Target.disposeBrowserContext", browserContextId=context)
        self._reading.cancel()
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            content = json.loads(message.data)
            if "id" in content:
                future = self._waiting.pop(content["id"])
                if not future.done():
                    future.set_result(content)
            elif page := self._pages.get(content.get("sessionId", "")):
                page.heard(content["method"], content["params"])


def start_chromium(binary: str, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start Chromium with a profile in `folder`; the process, and the address of its DevTools socket."""
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"], stdout=log, stderr=log
        )
    port_file = folder / "profile" / "DevToolsActivePort"
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        if port_file.exists() and len(lines := port_file.read_text().splitlines()) == 2:
            return process, f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    process.kill()
    last = (folder / "chromium.log").read_text(errors="replace")[-500:]
    raise RuntimeError(f"Chromium did not start within 30 s; it said: {last}")


@pytest.fixture(scope="session")
def chromium_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        pytest.skip("needs Chromium: Debian package chromium")
    process, address = start_chromium(binary, tmp_path_factory.mktemp("chromium"))
    yield address
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


@pytest_asyncio.fixture
async def browser(chromium_address: str) -> AsyncIterator[Browser]:
    """A Chromium to open pages in: `page = await browser.page(); await page.open(url)`."""
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(chromium_address, max_msg_size=0)
        made = Browser(socket)
        yield made
        await made.close()
