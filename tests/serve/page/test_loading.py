"""The first view is light; other parts of the page are loaded when they are first used."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.serve.page.test_looks import FILES, FOLDER
from tests.serve.page.test_run import WORD_BY_WORD, open_more, run_button, show_probabilities, text_of, writing
from tests.waiting import eventually

ON_DEMAND = {file.name for file in (FOLDER / "on_demand").iterdir()}
MADE = {"limits.js", "sampling.js"}  # by the server
FIRST_VIEW_BYTES = 59_000
ON_DEMAND_BYTES = 40_000
LOADED = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .map(one => [one.name, one.decodedBodySize])"""


def loaded(page: Page) -> dict[str, int]:
    """Address -> uncompressed bytes of all files that the browser has requested; answers of the API are left out."""
    return {url: size for url, size in page.evaluate(LOADED) if not re.search(r"/(v1/\w+|card)$", url)}


def on_demand(page: Page) -> set[str]:
    return {url.rpartition("/")[2] for url in loaded(page) if "/on_demand/" in url}


def test_first_view_is_light_and_asks_nobody_else(open_page, server):
    texts = [file.read_text(encoding="utf-8") for file in (*FILES, *(FOLDER / "on_demand").iterdir())]
    assert all(len(text.splitlines()) < 300 for text in texts)
    first = loaded(open_page(own=True))
    assert all(url.startswith(server.url) for url in first)
    assert len(first) >= len(FILES) and sum(first.values()) <= FIRST_VIEW_BYTES
    assert all((FOLDER / "on_demand" / name).stat().st_size <= ON_DEMAND_BYTES for name in ON_DEMAND)


def test_what_is_not_seen_at_first_is_loaded_when_it_is_used(page, answer_with):
    """Each part is used by keyboard. The first part that is used also brings the style sheet of all parts."""
    answer_with(page, " sat")
    writing(page).fill("the cat")
    writing(page).press("Control+Enter")
    expect(page.locator("#report")).to_contain_text("the model ended the text")
    assert eventually(lambda: on_demand(page) == {"history.js", "style.css"})
    page.get_by_role("tab", name="Examples").focus()
    for name, shown in (("More", "Top-k"), ("History", "the cat sat"), ("Model", "1024 tokens")):
        before = on_demand(page)
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name=name)).to_be_focused()
        expect(page.get_by_role("tabpanel", name=name)).to_contain_text(shown)
        assert len(on_demand(page) - before - {"style.css", *MADE}) == 1
    before = on_demand(page)
    page.get_by_role("button", name="Probabilities").press("Enter")
    expect(page.get_by_role("button", name="Probabilities")).to_have_attribute("aria-pressed", "true")
    assert on_demand(page) - before == {"alternatives.js", "span_popover.js", "token_text.js"}
    before = on_demand(page)
    page.get_by_role("button", name="Sources").press("Enter")
    expect(page.get_by_role("button", name="Sources")).to_have_attribute("aria-pressed", "true")
    assert on_demand(page) - before == {"sources.js", "sources_popover.js"}
    before = on_demand(page)
    page.get_by_role("tab", name="Inside").click()
    expect(page.get_by_role("button", name="Look inside")).to_be_visible()
    parts = {"inside.js", "inside_birth.js", "inside_parts.js", "inside_steering.js"}
    assert on_demand(page) - before == parts
    page.unroute("**/v1/completions")
    open_more(page)
    page.get_by_role("spinbutton", name="Samples").fill("2")
    page.get_by_label("Length").fill("8")
    page.get_by_label("Stop at function end").press("Space")
    writing(page).press("Control+Enter")
    expect(page.locator("article")).to_have_count(2)
    assert on_demand(page) == ON_DEMAND - {"link.js"} | MADE


def test_link_and_last_visit_bring_settings_that_have_no_control_yet(open_page, answer_with, server):
    page = open_page(
        url=f"{server.url}/#prompt=the+cat&top_k=7&seed=17&stop_before=END&min_p=2&font=code&no_such=1"
        "&max_tokens=100&typical_p=0.995&temperature=2&top_p=0.333"
    )
    assert "link.js" in on_demand(page)
    refused = "min_p=2 (now 0), no_such=1, temperature=2 (now 1.5)"
    expect(page.get_by_role("alert")).to_have_text(f"The page cannot set what the link asks for: {refused}.")
    expect(page.get_by_label("Top-p")).to_have_attribute("aria-valuetext", "0.333")
    answer_with(page, " sat")
    with page.expect_request("**/v1/completions") as sent:
        run_button(page).click()
    body = sent.value.post_data_json
    assert (body["top_k"], body["seed"], body["stop"]) == (7, 17, ["END"])
    assert body["min_p"] == 0  # 2 is out of range, so the default is sent
    assert (body["max_tokens"], body["typical_p"], body["temperature"], body["top_p"]) == (100, 0.995, 1.5, 0.333)
    expect(page.locator("#text")).to_have_value("the cat sat")
    page.reload()
    with page.expect_request("**/v1/completions") as sent:
        run_button(page).click()
    assert (sent.value.post_data_json["top_k"], sent.value.post_data_json["seed"]) == (7, 17)
    open_more(page)
    expect(page.get_by_label("Top-k")).to_have_value("7")
    for label, key, value in (
        ("Typical-p", "ArrowDown", "0.99"),
        ("Min-p", "ArrowUp", "0.01"),
        ("Length", "ArrowUp", "104"),
    ):
        page.get_by_label(label).press(key)
        expect(page.get_by_label(label)).to_have_value(value)
    # An entry of the history restores the settings of its run.
    page.get_by_label("Top-k").fill("9")
    page.get_by_role("tab", name="History").click()
    page.locator("[aria-label=History] li button").last.click()
    expect(page.get_by_label("Top-k")).to_have_value("7")


@pytest.mark.parametrize("use", [open_more, show_probabilities])
def test_part_that_fails_to_load_shows_an_error_and_can_be_tried_again(open_page, use):
    page = open_page(own=True)
    writing(page).fill("the cat")
    page.route("**/on_demand/*", lambda route: route.fulfill(status=404))
    name = "More" if use is open_more else "Probabilities"
    page.get_by_role("tab" if use is open_more else "button", name=name).click()
    expect(page.get_by_role("alert")).to_contain_text("did not load. Reload the page and try again")
    assert text_of(page) == "the cat"
    page.unroute("**/on_demand/*")
    use(page)


@pytest.mark.slow
def test_page_that_is_open_while_the_server_restarts_still_loads_its_parts(open_page, running, tiny_model):
    """Addresses depend only on the contents of the files, so those of an open page remain valid."""
    with running(tiny_model) as server:
        page = open_page(url=server.url)
        first = {url.removeprefix(server.url) for url in loaded(page)}
        port = int(server.url.rpartition(":")[2])
    with running(tiny_model, port=port) as server:
        open_more(page)
        show_probabilities(page)
        parts = {"more_settings.js", "sampling.js", "alternatives.js", "span_popover.js", "token_text.js"}
        assert on_demand(page) == {"style.css", *parts}
        assert {url.removeprefix(server.url) for url in loaded(open_page(url=server.url))} == first


ENTRY = '{"text": "the cat", "spans": [], "settings": {}, "note": "", "when": 1}'
SPANS = (
    '[null, {"start": 2, "end": 99}, {"start": -1, "end": 2}, {"start": 0, "end": 1, "logprob": "x", "top": [5, null]}]'
)


@pytest.mark.parametrize(
    ("state", "history", "n_entries"),
    [
        ('"x"', '{"a": 1}', 0),
        ('{"text": 5, "spans": {}, "samples": {"length": 2}, "settings": 5, "probabilities": {}}', "7", 0),
        (f'{{"text": "abc", "spans": {SPANS}, "samples": [3], "probabilities": true}}', f"[null, 5, {{}}, {ENTRY}]", 1),
        (
            '{"text": "a\\r\\nb", "spans": [{"start": 3, "end": 4}], "settings": {"n": {}, "top_k": [1]}}',
            '[{"text": "x", "spans": 5, "settings": [[]], "note": {"toString": 1}, "when": 1e300}, {"text": 3}]',
            1,
        ),
    ],
)
def test_odd_stored_data_does_not_keep_the_page_from_working(open_page, answer_with, state, history, n_entries):
    page = open_page()
    stored = {"bluejay": state, "bluejay-history": history, "bluejay-key": '{"a": 1}'}
    page.evaluate(
        """stored => {
            document.onvisibilitychange = null;
            sessionStorage.clear();
            Object.assign(localStorage, stored);
        }""",
        stored,
    )
    page.reload()
    expect(page.locator("#model")).to_have_text("tiny")
    writing(page).press("Home")  # which shows alternatives, if probabilities are on
    page.get_by_role("tab", name="History").click()
    expect(page.locator("[aria-label=History] li")).to_have_count(n_entries)
    writing(page).fill("the cat")
    answer_with(page, " sat")
    run_button(page).click()
    expect(page.locator("#text")).to_have_value("the cat sat")
    expect(page.locator("[aria-label=History] li")).to_have_count(n_entries + 1)


def test_server_that_hangs_is_said_within_seconds(open_page):
    page = open_page(own=True)
    held = []
    page.route("**/v1/*", lambda route: held.append(route))
    page.clock.install()
    page.reload()
    page.clock.run_for(5000)
    expect(page.locator("#error")).to_have_text("The server has not answered for 5 seconds.")
    unnamed = page.get_by_role("button", name="Model", exact=True)
    expect(unnamed).to_have_accessible_description("Choose or read about the model")
    held.pop().continue_()
    expect(page.locator("#model")).to_have_text("tiny")
    expect(page.locator("#error")).to_have_text("")
    writing(page).fill("the cat")
    run_button(page).click()
    page.clock.run_for(10_000)
    expect(page.locator("#report")).to_have_text("The server has not answered for 10 seconds. Stop ends the run.")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#report")).not_to_contain_text("has not answered")


def test_a_server_that_lets_a_run_wait_is_told_from_one_that_hangs(open_page):
    page = open_page(own=True)
    page.evaluate(WORD_BY_WORD)
    page.clock.install()
    run_button(page).click()
    assert eventually(lambda: page.evaluate("'comment' in globalThis"))
    for after, told in ((10, "is busy: no text for 10"), (15, "has not answered for 25")):
        page.clock.run_for(1000 * after)
        expect(page.locator("#report")).to_have_text(f"The server {told} seconds. Stop ends the run.")
    page.evaluate("comment()")
    page.clock.run_for(5000)
    expect(page.locator("#report")).to_have_text("The server is busy: no text for 30 seconds. Stop ends the run.")


def test_print_has_the_whole_text_without_the_controls(open_page):
    page = open_page(own=True)
    text = "\n".join(f"line {i} of a text that is longer than one sheet of paper" for i in range(300))
    writing(page).fill(text)
    page.emulate_media(media="print")
    expect(page.locator("#mirror")).to_be_visible()
    expect(page.locator("form")).to_be_hidden()
    assert page.locator("#mirror").inner_text() == text
    assert page.evaluate("document.documentElement.scrollHeight") > 300 * 16
    pages = re.search(rb"/Type\s*/Pages.*?/Count (\d+)|/Count (\d+)", page.pdf(), re.DOTALL)
    assert int(pages[1] or pages[2]) > 4
