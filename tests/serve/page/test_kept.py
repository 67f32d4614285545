"""What the browser keeps of a text, a run and a key, and what a link brings."""

import json

import pytest
from playwright.sync_api import Route, expect

from tests.serve.page.test_controls import tab
from tests.serve.page.test_run import WORD_BY_WORD, models_words, open_more, run_button, text_of, writing
from tests.waiting import eventually

FILL = """() => localStorage.setItem("bluejay-history", JSON.stringify(
    Array(50).fill({ text: "h".repeat(104_000), spans: [], settings: {}, note: "", when: 1 })))"""
STORED = "storage => JSON.parse(globalThis[storage].getItem('bluejay'))?.text"


def test_old_runs_make_room_for_the_text(page):
    page.evaluate(FILL)
    text = "x" * 60_000
    writing(page).fill(text)
    for storage in ("localStorage", "sessionStorage"):
        assert eventually(lambda storage=storage: page.evaluate(STORED, storage) == text)
    assert page.evaluate("JSON.parse(localStorage['bluejay-history']).length") == 25
    expect(page.locator("#error")).to_have_text("")


def test_text_that_is_not_stored_is_said_once(page):
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full'); }; }")
    writing(page).fill("the cat")
    expect(page.get_by_role("alert")).to_have_text("This browser does not store the text; a reload would lose it.")
    writing(page).press("x")
    page.wait_for_timeout(600)
    expect(page.locator("#error")).to_have_text("")


@pytest.mark.parametrize(
    ("sample", "told"),
    [(" sat", ""), ("s" * 3000, "This browser does not store the samples; a reload would lose them.")],
)
def test_samples_are_kept_without_their_tokens_or_their_loss_is_said(page, sample, told):
    span = {"start": 0, "end": 4, "logprob": -1, "top": [["x" * 3000, -1]]}
    samples = [{"text": sample, "spans": [span], "note": ""}]
    state = json.dumps({"text": "the cat", "spans": [], "samples": samples})
    page.evaluate("state => { document.onvisibilitychange = null; sessionStorage.setItem('bluejay', state); }", state)
    page.reload()
    expect(page.locator(".sample")).to_have_text(sample)
    page.evaluate("""() => {
        const { setItem } = Storage.prototype;
        Storage.prototype.setItem = function (key, value) {
            if (value.length > 2000) throw new Error("full");
            setItem.call(this, key, value);
        };
    }""")
    writing(page).fill("the dog")
    assert eventually(lambda: page.evaluate(STORED, "localStorage") == "the dog")
    kept = page.evaluate("JSON.parse(localStorage['bluejay']).samples.map(({ text }) => text)")
    assert kept == ([] if told else [sample])
    expect(page.locator("#error")).to_have_text(told)


def test_each_tab_keeps_its_own_text_also_while_the_model_writes(page, server):
    writing(page).fill("one")
    assert eventually(lambda: page.evaluate(STORED, "sessionStorage") == "one")
    other = page.context.new_page()
    other.goto(server.url)
    assert text_of(other) == "one"
    writing(other).fill("another")
    assert eventually(lambda: other.evaluate(STORED, "localStorage") == "another")
    page.evaluate("document.onvisibilitychange = null")  # as when the browser discards the tab
    page.reload()
    expect(page.locator("#model")).to_have_text("tiny")
    assert text_of(page) == "one"
    page.evaluate(WORD_BY_WORD)
    run_button(page).click()
    assert eventually(lambda: page.evaluate("'write' in globalThis"))
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true })")
    page.evaluate("write(' word')")
    assert eventually(lambda: page.evaluate(STORED, "sessionStorage") == "one word")


def test_history_keeps_all_samples_of_a_run(page):
    open_more(page)
    page.get_by_role("spinbutton", name="Samples").fill("2")
    page.get_by_label("Length").fill("8")
    writing(page).fill("the cat")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("16 tokens · ")
    samples = page.locator(".sample").all_text_contents()
    page.get_by_role("button", name="Discard all").press("Enter")
    expect(writing(page)).to_be_focused()
    page.reload()
    tab(page, "History")
    page.locator("[aria-label=History] li button").click()
    expect(page.locator(".sample")).to_have_text(samples)
    assert text_of(page) == "the cat"


def test_history_keeps_the_settings_with_which_a_run_began(page):
    page.evaluate(WORD_BY_WORD)
    page.get_by_label("Temperature", exact=True).fill("0.3")
    run_button(page).click()
    assert eventually(lambda: page.evaluate("'write' in globalThis"))
    page.evaluate("write('word')")
    page.get_by_label("Temperature", exact=True).fill("1.2")
    page.get_by_role("button", name="Stop").click()
    first = "JSON.parse(localStorage['bluejay-history'] ?? '[]')[0]?.settings.temperature"
    assert eventually(lambda: page.evaluate(first) == 0.3)


def test_history_that_was_deleted_can_be_brought_back(page, server):
    page.evaluate(FILL)
    tab(page, "History")
    expect(page.get_by_role("tabpanel", name="History")).to_contain_text("The latest runs, 50 at most")
    entries = page.locator("[aria-label=History] li")
    page.get_by_role("button", name="Delete all").click()
    expect(entries).to_have_count(0)
    page.get_by_role("button", name="Bring back").click()
    expect(entries).to_have_count(50)
    other = page.context.new_page()
    other.goto(f"{server.url}/healthz")
    other.evaluate("localStorage.setItem('bluejay-history', '[]')")  # as when another tab deletes it
    expect(entries).to_have_count(0)
    expect(page.get_by_role("button", name="Delete all")).to_be_visible()


def test_link_leaves_the_draft_in_the_history(page):
    writing(page).fill("my draft")
    page.evaluate("location.hash = '#prompt=one'")
    expect(page.locator("#text")).to_have_value("one")
    page.reload()
    tab(page, "History")
    page.locator("[aria-label=History] li button", has_text="before a link").click()
    expect(page.locator("#text")).to_have_value("my draft")


def test_link_with_line_ends_of_windows_says_who_wrote_the_answer(page):
    page.evaluate("location.hash = '#prompt=a%0D%0Ab%0Dc&answer=X%0D%0AYZ&stop_before=END%0D%0A.'")
    expect(page.locator("#text")).to_have_value("a\nb\ncX\nYZ")
    assert models_words(page) == ["X\nYZ"]
    expect(page.locator("#error")).to_have_text("")


def test_link_opens_where_the_page_is_open_and_waits_for_the_end_of_a_run(page):
    page.evaluate(WORD_BY_WORD)
    run_button(page).click()
    assert eventually(lambda: page.evaluate("'write' in globalThis"))
    page.evaluate("location.hash = '#prompt=one'")
    page.evaluate("write('word')")
    expect(page.locator("#text")).to_have_value("word")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#text")).to_have_value("one")
    page.evaluate("location.hash = '#prompt=another&temperature=0.3'")
    expect(page.locator("#text")).to_have_value("another")
    expect(page.get_by_label("Temperature", exact=True)).to_have_value("0.3")
    assert "#" not in page.url


def test_key_with_a_character_that_no_key_has_is_asked_for_again(page):
    page.evaluate("localStorage.setItem('bluejay-key', JSON.stringify('sk\\u200b'))")
    page.reload()
    expect(page.get_by_role("alert")).to_have_text("The API key holds a character that no key has. Enter it again.")
    expect(page.get_by_label("API key")).to_be_focused()
    page.get_by_label("API key").fill(" secret\t")
    with page.expect_request("**/v1/models") as sent:
        page.get_by_label("API key").blur()
    assert sent.value.headers["authorization"] == "Bearer secret"
    expect(page.locator("#model")).to_have_text("tiny")
    with page.expect_request("**/card") as sent:
        tab(page, "Model")
    assert sent.value.headers["authorization"] == "Bearer secret"


def test_key_is_asked_for_where_the_server_needs_one(page, answer_with):
    refusal = '{"error": {"message": "this server wants an API key", "type": "x", "param": null, "code": "no_key"}}'
    page.route("**/v1/completions", lambda route: route.fulfill(status=401, body=refusal))
    writing(page).fill("the cat")
    run_button(page).click()
    expect(page.get_by_role("alert")).to_contain_text("This server wants an API key.")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type("secret")
    answer_with(page, " sat")
    with page.expect_request("**/v1/completions") as sent:
        page.keyboard.press("Enter")
    assert sent.value.headers["authorization"] == "Bearer secret"
    expect(page.locator("#text")).to_have_value("the cat sat")


@pytest.mark.parametrize("part", ["Sources", "Inside"])
def test_every_part_asks_for_a_key_that_is_missing(page, part):

    def refuse(route: Route) -> None:
        wrong = "authorization" in route.request.headers
        message = "the key is wrong" if wrong else "this server requires one of its API keys"
        route.fulfill(status=401, json={"error": {"message": message}})

    page.route("**/v1/*", refuse)
    writing(page).fill("the cat")
    if part == "Sources":
        page.get_by_role("button", name="Sources").click()
    else:
        tab(page, "Inside")
        page.get_by_role("button", name="Look inside").click()
    expect(page.get_by_role("alert")).to_have_text("This server requires one of its API keys.")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Tab")
    expect(page.get_by_role("alert")).to_have_text("The key is wrong.")


def test_key_that_became_wrong_does_not_take_the_words_that_are_typed(page):
    refusal = '{"error": {"message": "this key was withdrawn"}}'
    corpora = {"available": True, "charged": False, "corpora": [], "index": None}
    page.route("**/v1/trace", lambda route: route.fulfill(json=corpora))
    page.get_by_role("button", name="Sources").click()
    bar = page.get_by_role("region", name="Sources of the text")
    expect(bar).to_contain_text("Searching")
    page.route("**/v1/trace", lambda route: route.fulfill(status=401, body=refusal))
    writing(page).focus()
    page.keyboard.type("the")
    expect(bar).to_contain_text("This key was withdrawn.")
    page.keyboard.type(" cat")
    assert text_of(page) == "the cat"
