"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# What MLflow's pages keep in the browser: the view of model training, and no assistant over it.
_SETTLED = """
if (window === top) {
    localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
    localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
}
"""
_QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="session")
def chromium(debian) -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@contextmanager
def launched() -> Iterator[Browser]:
    """A headless browser; imported here, since every test process loads these fixtures and few use them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_QUIET)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, width: int, height: int, known: bool = True) -> Iterator[tuple[Page, list[str]]]:
    """A page in a window of its own, and the addresses that it has asked for; nothing may go wrong in it.

    The browser has looked at MLflow's pages of model training before, unless it is not ``known`` there.
    """
    context = browser.new_context(viewport={"width": width, "height": height})
    if known:
        context.add_init_script(_SETTLED)
    page = context.new_page()
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(url, wait_until="load")
    yield page, requests
    assert not errors
    context.close()
