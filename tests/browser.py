"""A real Chromium for the tests of pages, driven by Playwright, with axe-core (both pinned in requirements/test.txt)."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from importlib.resources import files

import pytest
from playwright.sync_api import sync_playwright

DEMANDED = "CHAOS_TEST_CHROMIUM"  # set where a Chromium has to be there: then its absence is no reason to skip a test
NAMES = ("chromium", "chromium-browser", "google-chrome")
SEVERE = {"serious", "critical"}
MEASURE = "() => [document.documentElement.scrollWidth, window.innerWidth]"
OPEN = "() => document.querySelectorAll('details').forEach(one => one.setAttribute('open', ''))"
# what is drawn in a picture with a role and a label is no content of its own, and would take most of the time
RUN = "() => axe.run({exclude: [['svg[role=img] > *']]}, {resultTypes: ['violations']})"


@pytest.fixture(scope="module")
def browser():
    found = next((path for path in map(shutil.which, NAMES) if path), "")
    if not found:
        (pytest.fail if os.environ.get(DEMANDED) or os.environ.get("CI") else pytest.skip)(
            "no Chromium: apt-get install chromium"
        )
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found)
        yield launched
        launched.close()


@contextmanager
def opened(browser, path, *, scripts=True):
    """The page, its closed parts opened; what it says on the console, or asks of anybody, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=scripts)
    seen: list[str] = []
    try:
        page = context.new_page()
        page.on("console", lambda message: seen.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on("request", lambda request: seen.append(f"request: {request.url}") if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        page.evaluate(OPEN)
        yield page
        assert not seen
    finally:
        context.close()


def seen_as(page, *, width=1280, scheme="light", media="screen"):
    """From here on as somebody with such a window, or a printer, sees it."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(media=media, color_scheme=scheme)


def violations(page):
    """What axe finds that is serious or critical: (rule, where). It is a script: a page without scripts would never answer it."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate(RUN)
    assert found["passes"]  # it did look
    return [
        (one["id"], node["html"][:160]) for one in found["violations"] if one["impact"] in SEVERE for node in one["nodes"][:3]
    ]


def too_wide(page):
    """By how many pixels the page has to be moved sideways to be read."""
    across, window = page.evaluate(MEASURE)
    return max(0, across - window)
