"""Fixtures: a real browser that opens the page of a real server, and known answers in place of the model's."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.waiting import PATIENCE

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
expect.set_options(timeout=1000 * PATIENCE)
SIZES = {"desktop": (1280, 720), "phone": (390, 844)}


@pytest.fixture(scope="package")  # asyncio.run of other tests fails while the event loop of Playwright runs
def browser():
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if chromium is None:
        message = "no Chromium to open the page in; `apt-get install chromium` brings one"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def kept(browser):
    """A tab that one test after another uses: a new profile fetches and compiles all files again."""
    contexts = []
    yield new_context(browser, contexts, "desktop", "light").new_page()
    contexts[0].close()


def forget(page: Page, url: str) -> None:
    """Leave nothing of the test before: routes, permissions, tabs, storage of the address, the pointer's place."""
    page.unroute_all(behavior="ignoreErrors")
    page.context.clear_permissions()
    for other in page.context.pages:
        if other != page:
            other.close()
    page.goto("/".join([*url.split("/")[:3], "healthz"]))  # leaving the page stores its text, so it comes first
    page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
    page.mouse.move(0, 0)


@pytest.fixture
def open_page(browser, server, request):
    """Opens the page: in the tab of the test before, or in a new browser profile if it is to be the test's own, has
    other options than the tab, or is not the first of its test."""
    problems, contexts, used = [], [], []

    def note(error: Exception) -> None:
        problems.append(error)

    def opened(
        size: str = "desktop", scheme: str = "light", url: str = server.url, own: bool = False, **options
    ) -> Page:
        if (size, scheme) == ("desktop", "light") and not (options or own or used):
            used.append(request.getfixturevalue("kept"))
            page = used[0]
            forget(page, url)
        else:
            page = new_context(browser, contexts, size, scheme, **options).new_page()
        page.on("pageerror", note)
        page.goto(url)
        expect(page.locator("#model")).to_have_text("tiny")
        return page

    yield opened
    for page in used:
        page.remove_listener("pageerror", note)
        page.unroute_all(behavior="ignoreErrors")
        page.goto("about:blank")
    for context in contexts:
        context.close()
    assert problems == []


def new_context(browser: Browser, contexts: list, size: str, scheme: str, **options):
    width, height = SIZES[size]
    phone = {"has_touch": True, "is_mobile": True} if size == "phone" else {}
    viewport = {"width": width, "height": height}
    contexts.append(browser.new_context(viewport=viewport, color_scheme=scheme, **phone, **options))
    contexts[-1].set_default_timeout(1000 * PATIENCE)
    return contexts[-1]


@pytest.fixture
def page(open_page) -> Page:
    return open_page()


@pytest.fixture
def slow_engine(engine_thread) -> Callable[[], AbstractContextManager[None]]:
    """A context in which each step takes a hundredth of a second: all that the tiny model can write would take less
    than one."""

    @contextmanager
    def slowed() -> Generator[None]:
        step = engine_thread.engine.step

        def step_slowly() -> list:
            time.sleep(0.01)
            return step()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine_thread.engine, "step", step_slowly)
            yield

    return slowed


Word = tuple[str, float, dict[str, float]]
"""A token, its probability, and the likeliest tokens at its place with theirs."""


@pytest.fixture
def answer_with() -> Callable[..., None]:
    """Replaces the next answers of the server with these words, each of them one token."""

    def answer(page: Page, *words: str | Word, reason: str = "stop") -> None:
        known = [word if isinstance(word, tuple) else (word, 0.5, {word: 0.5}) for word in words]
        parts = [part(*word) for word in known] + [part("<|endoftext|>", 0.9, {}, "", reason)]

        def fulfill(route: Route) -> None:
            lines = [*map(json.dumps, parts), "[DONE]"]
            route.fulfill(content_type="text/event-stream", body="".join(f"data: {line}\n\n" for line in lines))

        page.route("**/v1/completions", fulfill)  # the newest route is used

    return answer


def part(
    token: str, share: float, others: dict[str, float], text: str | None = None, reason: str | None = None
) -> dict:
    """One event of a stream of the API."""
    logprobs = {
        "tokens": [token],
        "token_logprobs": [math.log(share)],
        "top_logprobs": [{other: math.log(value) for other, value in others.items()}],
        "text_offset": [0],
    }
    choice = {"index": 0, "text": token if text is None else text, "logprobs": logprobs, "finish_reason": reason}
    return {"object": "text_completion", "choices": [choice]}
