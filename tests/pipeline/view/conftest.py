"""A dataset, a running server and a real browser for the tests of the viewer."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from pipeline.view import ViewConfig, make_app
from tests.pipeline.annotation_fixture import MadeDataset, make_dataset

_CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    """24 images in two shards; the first has hostile text, each shard one error and one no_phrase."""
    return make_dataset(tmp_path_factory.mktemp("dataset"), images=24, seed=3)


@contextlib.contextmanager
def running(output: Path | str, **options: Any) -> Iterator[str]:
    """The viewer over `output` on a free port; its URL, with a slash at the end."""
    app = make_app(ViewConfig(output=str(output), threads=2, **options))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join(20)


def launch(playwright: Playwright) -> Browser:
    """Headless Chromium. It is needed: a page that no browser has opened is not tested."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.fail("Chromium is missing, and these tests need it: apt-get install chromium")
    return playwright.chromium.launch(executable_path=path, args=_CHROMIUM_FLAGS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """open_page(url, width=, height=, dark=): a page that is ready; complaints fail the test.

    Complaints are errors on the console, uncaught exceptions, dialogs and requests elsewhere.
    """
    complaints: list[str] = []
    contexts = []

    def opened(url: str, width: int = 1280, height: int = 860, *, dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        origin = "/".join(url.split("/")[:3])

        def elsewhere(request: Any) -> None:
            if not request.url.startswith((origin, "data:", "blob:")):
                complaints.append(f"request to {request.url}")

        def on_console(message: Any) -> None:
            # The browser itself reports every answer that is not 2xx; pages show those to people.
            if message.type == "error" and "Failed to load resource" not in message.text:
                complaints.append(f"console: {message.text}")

        page.on("request", elsewhere)
        page.on("console", on_console)
        page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.goto(url)
        page.wait_for_selector("html[data-ready]")
        expect(page.locator("#notices .notice")).to_have_count(0)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints
