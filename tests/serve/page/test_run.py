"""Writing, running, stopping and undoing, in a real browser that talks to a real server."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from bluejay.serve.api.parameters import MAX_STOP
from tests.waiting import eventually

MARKUP = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\"> & <b>bold</b>"
HIGHLIGHTED = """name => [...(CSS.highlights.get(name) ?? [])].map(
    ({startContainer, startOffset, endOffset}) => startContainer.data.slice(startOffset, endOffset))"""


def writing(page: Page) -> Locator:
    return page.get_by_label("Text. The model continues from its end.")


def run_button(page: Page) -> Locator:
    return page.get_by_role("button", name="Run", exact=True)


def text_of(page: Page) -> str:
    return writing(page).input_value()


def open_more(page: Page) -> None:
    """Select the tab "More" and wait for its controls, which are loaded when they are first seen."""
    page.get_by_role("tab", name="More").click()
    expect(page.get_by_label("Seed")).to_be_visible()


def show_probabilities(page: Page) -> None:
    """Switch probabilities on and wait for the popover of alternatives, which is loaded at the first click."""
    button = page.get_by_role("button", name="Probabilities")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")


def next_frame(page: Page) -> None:
    """Wait until all that is scheduled for the next frame has been drawn."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def models_words(page: Page) -> list[str]:
    """The words on the tint, once it has been drawn."""
    next_frame(page)
    return page.evaluate(HIGHLIGHTED, "model")


def test_run_streams_and_stop_keeps_the_text(page, engine_thread, slow_engine):
    prompt = "the cat"
    writing(page).fill(prompt)
    top_p, temperature = page.get_by_label("Top-p", exact=True), page.get_by_label("Temperature", exact=True)
    assert (top_p.input_value(), temperature.input_value()) == ("0.9", "0.8")
    top_p.focus()
    for _ in range(7):
        page.keyboard.press("ArrowLeft")
    temperature.focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    for slider, shown in ((top_p, "0.83"), (temperature, "0.92")):
        expect(slider).to_have_attribute("aria-valuetext", shown)
        expect(page.locator("label", has=slider)).to_have_attribute("data-value", shown)
    page.get_by_label("Length").press("End")

    with slow_engine():
        with page.expect_request("**/v1/completions") as sent:
            run_button(page).click()
        body = sent.value.post_data_json
        assert (body["top_p"], body["temperature"], body["prompt"]) == (0.83, 0.92, prompt)
        assert (body["max_tokens"], body["n"], body["stream"]) == (1024, 1, True)

        lengths = {len(text_of(page))}
        for _ in range(2):
            expect(page.locator("#text")).not_to_have_value(text_of(page))
            lengths.add(len(text_of(page)))
        assert len(lengths) == 3 and min(lengths) >= len(prompt)
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#report")).to_contain_text("stopped by you")
    text = text_of(page)
    assert text.startswith(prompt) and len(text) > len(prompt)
    assert eventually(lambda: engine_thread.engine.idle)
    next_frame(page)
    assert text_of(page) == text
    # The user's and the model's words are distinguished; together they are the text.
    assert models_words(page) == [text[len(prompt) :]]
    expect(page.locator("#report")).to_contain_text(re.compile(rf"\d+ tokens · .*seed {body['seed']} "))


WORD_BY_WORD = """() => {
    const [bytes, { fetch }] = [new TextEncoder(), globalThis];
    const completions = ({ signal }) => new Response(new ReadableStream({
        start(stream) {
            signal.onabort = () => stream.error(signal.reason);
            globalThis.write = (text, model) => stream.enqueue(bytes.encode(`data: ${JSON.stringify({
                model, choices: [{ index: 0, text, logprobs: null, finish_reason: null }] })}\\n\\n`));
            globalThis.comment = () => stream.enqueue(bytes.encode(": waiting\\n\\n"));
        },
    }));
    globalThis.fetch = async (url, options) =>
        url.startsWith("v1/completions") ? completions(options) : fetch(url, options);
}"""
"""Puts completions into the page that send a word at the test's call of `write`, and a busy server's at `comment`."""


def test_nothing_jumps_while_the_model_writes(page):
    """Caret, selection and scroll position stay, and no part of the page moves or changes its size."""
    page.evaluate(WORD_BY_WORD)
    text = "read me\n" + "\n" * 300
    writing(page).fill(text)
    writing(page).evaluate("text => text.setSelectionRange(0, 4)")
    boxes = """() => ['header', '.workspace', 'footer', '.actions', '.sliders', '.tabs'].map(
        one => document.querySelector(one).getBoundingClientRect().toJSON())"""
    scroll_top = "document.querySelector('#scroll').scrollTop"
    run_button(page).click()
    assert eventually(lambda: page.evaluate("'write' in globalThis"))
    before = page.evaluate(boxes)

    def write(word: str) -> None:
        nonlocal text
        text += word
        page.evaluate("word => write(word)", word)
        expect(page.locator("#text")).to_have_value(text)
        next_frame(page)

    page.locator("#scroll").hover()
    page.mouse.wheel(0, 9000)
    assert eventually(lambda: page.evaluate(scroll_top) > 1000)
    write("first")
    page.mouse.wheel(0, -19000)
    assert eventually(lambda: page.evaluate(scroll_top) == 0)
    for word in (" second", "\nthird", "\n" * 40):
        write(word)
        assert page.evaluate(scroll_top) == 0
        assert writing(page).evaluate("text => [text.selectionStart, text.selectionEnd]") == [0, 4]
        assert page.evaluate(boxes) == before
    page.keyboard.press("Escape")
    expect(page.locator("#report")).to_contain_text("stopped by you")
    assert page.evaluate(boxes) == before


def test_view_follows_the_end(page, answer_with):
    answer_with(page, *[f" line {i} of many" if i % 2 else "\n" for i in range(400)])
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("the model ended the text")
    to_the_end = "it => it.scrollHeight - it.scrollTop - it.clientHeight"
    assert eventually(lambda: page.locator("#scroll").evaluate(to_the_end) < 2)


def test_keyboard_alone(page, slow_engine):
    writing(page).fill("the cat")
    page.get_by_label("Length").press("End")
    with slow_engine():
        writing(page).press("Control+Enter")
        expect(page.locator("#text")).not_to_have_value("the cat")
        page.keyboard.press("Escape")
        expect(page.locator("#announcement")).to_contain_text("Stopped. ")
    after = text_of(page)
    for _ in range(2):  # the second has nothing to undo
        writing(page).press("Control+z")
        assert text_of(page) == "the cat"
    writing(page).press("Control+Shift+z")
    assert text_of(page) == after
    # The focus moves to the button that is enabled.
    with slow_engine():
        run_button(page).press("Enter")
        expect(page.get_by_role("button", name="Stop")).to_be_focused()
        page.keyboard.press("Enter")
        expect(run_button(page)).to_be_focused()
    undo = page.get_by_role("button", name="Undo")
    while undo.is_enabled():
        undo.press("Enter")
    expect(undo).to_be_focused()


NAME = "one => one.id || one.textContent"


def test_every_control_is_reached_with_tab_in_the_order_of_reading(page):
    open_more(page)
    writing(page).fill("x")
    writing(page).focus()
    reached = ["text"]
    while True:
        page.keyboard.press("Tab")
        reached.append(page.evaluate(f"({NAME})(document.activeElement)"))
        if reached[-1] in ("link", "", "text"):
            break
    wanted = page.locator("#form :is(button, input, select, textarea):visible:enabled:not([tabindex='-1'])")
    assert reached[1:] == [one.evaluate(NAME) for one in wanted.all()]


def test_invalid_setting_is_shown(page):
    writing(page).fill("the cat")
    too_many = "\n".join(map(str, range(MAX_STOP + 1)))
    invalid = ("Seed", "seven"), ("Stop before", too_many), ("Logit bias", "65=101"), ("Logit bias", "x")
    for label, value in invalid:
        page.get_by_role("tab", name="More").click()
        page.get_by_label(label).fill(value)
        page.get_by_role("tab", name="Examples").click()
        writing(page).press("Control+Enter")
        expect(page.get_by_label(label)).to_be_focused()
        page.get_by_label(label).fill("")
    assert text_of(page) == "the cat"


def test_same_seed_same_text(page):
    page.get_by_role("tab", name="More").click()
    page.get_by_label("Seed").fill("17 ")  # as a double click copies it from a report
    page.get_by_label("Length").fill("24")
    texts = []
    for _ in range(2):
        writing(page).fill("the cat")
        writing(page).press("Shift+Enter")
        expect(page.locator("#report")).to_contain_text("24 tokens · ")
        expect(page.locator("#report")).to_contain_text("seed 17 · length reached · context 29 of 1024")
        texts.append(text_of(page))
    assert texts[0] == texts[1] != "the cat"


def test_markup_stays_text(page, answer_with):
    answer_with(page, *(MARKUP[i : i + 7] for i in range(0, len(MARKUP), 7)))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """markup => navigator.clipboard.write([
            new ClipboardItem(Object.fromEntries(["text/html", "text/plain"].map(
                type => [type, new Blob([markup], { type })])))
        ])""",
        MARKUP,
    )
    writing(page).press("Control+v")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("the model ended the text")
    assert text_of(page) == MARKUP * 2
    assert models_words(page) == [MARKUP]
    show_probabilities(page)
    page.locator("#text").click(position={"x": 130, "y": 20})
    page.get_by_role("tab", name="History").click()
    expect(page.locator("[aria-label=History] li")).to_contain_text("<script>")
    assert page.locator("main :is(script, b:not(#alternatives b), img[src=x])").count() == 0
    assert page.title() == "Bluejay"


def test_edited_words_become_the_users(page, answer_with):
    answer_with(page, " sat on", " the mat")
    writing(page).fill("the cat")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("the model ended the text")
    assert models_words(page) == [" sat on the mat"]
    page.evaluate("document.getElementById('text').setSelectionRange(8, 11)")
    writing(page).focus()
    page.keyboard.type("lay")
    assert text_of(page) == "the cat lay on the mat"
    assert models_words(page) in ([" ", " on the mat"], [" on the mat"])
    # The edited token has lost its probability; the other token keeps it.
    show_probabilities(page)
    assert page.evaluate(HIGHLIGHTED, "p1") == [" the mat"]


def test_mirror_lies_exactly_under_the_text(page, answer_with):
    words = (
        "A long line that wraps somewhere, " * 9,
        "\n\n\tindented   with spaces\n",
        "日本語 and שלום עולם\r\n",
        "end\n\n",
    )
    answer_with(page, *words)
    page.get_by_role("tab", name="More").click()
    for letters in ("prose", "code"):
        page.get_by_label("Font").select_option(letters)
        writing(page).fill("Begin:\n")
        run_button(page).click()
        expect(page.locator("#report")).to_contain_text("the model ended the text")
        text, mirror = page.evaluate("['text', 'mirror'].map(id => document.getElementById(id).scrollHeight)")
        assert text == mirror > 200


def test_font_and_colours_fit_code_and_prose(page):
    def letters() -> str:
        return writing(page).evaluate("text => getComputedStyle(text).fontFamily")

    prose = letters()
    writing(page).fill("Once upon a time there was a class of birds, and they let nobody return.")
    assert letters() == prose
    writing(page).fill("def fly(bird):\n    return bird + 1  # up\n")
    assert "mono" in letters()
    assert page.evaluate(HIGHLIGHTED, "keyword") == ["def", "return"]
    assert page.evaluate(HIGHLIGHTED, "name") == ["fly"]
    assert page.evaluate(HIGHLIGHTED, "comment") == ["# up"]
    page.get_by_role("tab", name="More").click()
    page.get_by_label("Font").select_option("prose")
    assert letters() == prose and page.evaluate(HIGHLIGHTED, "keyword") == []


def test_generation_can_stop_at_the_end_of_a_function(page, answer_with):
    page.get_by_role("tab", name="More").click()
    page.get_by_label("Stop at function end").check()
    body = ["    if b == 0:\n", "        return a\n", "    return gcd(b, a % b)\n\n"]
    answer_with(page, *body, "print", "(gcd(4, 6))")
    writing(page).fill("def gcd(a, b):\n")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("end of the function")
    assert text_of(page) == "def gcd(a, b):\n" + "".join(body).rstrip("\n")


def test_text_settings_and_samples_survive_a_reload(page, answer_with):
    answer_with(page, " sat")
    writing(page).fill("the cat")
    page.get_by_label("Temperature", exact=True).fill("1.25")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("the model ended the text")
    show_probabilities(page)
    page.unroute("**/v1/completions")
    page.get_by_role("tab", name="More").click()
    page.get_by_role("spinbutton", name="Samples").fill("2")
    page.get_by_label("Length").fill("8")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("16 tokens")
    samples = page.locator(".sample").all_text_contents()
    page.reload()
    assert text_of(page) == "the cat sat"
    expect(page.get_by_role("button", name="Probabilities")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate(HIGHLIGHTED, "p1")[0] == " sat"
    expect(page.locator(".sample")).to_have_text(samples)
    expect(page.get_by_label("Temperature", exact=True)).to_have_attribute("aria-valuetext", "1.25")
    # A reload during a run keeps the text, too.
    page.get_by_label("Length").press("End")
    page.get_by_role("tab", name="More").click()
    page.get_by_role("spinbutton", name="Samples").fill("1")
    run_button(page).click()
    expect(page.locator("#text")).not_to_have_value("the cat sat")
    page.reload()
    assert len(text_of(page)) > len("the cat sat")


def test_text_that_is_too_long_stays_with_advice(page):
    long = "x" * 2000
    writing(page).fill(long)
    run_button(page).click()
    expect(page.get_by_role("alert")).to_contain_text("The prompt has 2000 tokens; this model's maximum context length")
    expect(page.get_by_role("alert")).to_contain_text("Shorten your text")
    assert text_of(page) == long
    expect(run_button(page)).to_be_enabled()


def test_text_stays_when_the_server_does_not_answer(open_page, running, tiny_model):
    with running(tiny_model) as server:
        page = open_page(url=server.url)
        writing(page).fill("the cat")
    run_button(page).click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    assert text_of(page) == "the cat"


@pytest.mark.parametrize("body", ['{"error": "Bad Gateway"}', '{"error": {"message": null}}', "null", "<html>"])
def test_what_a_proxy_answers_is_said_in_a_sentence(page, body):
    page.route("**/v1/completions", lambda route: route.fulfill(status=502, body=body))
    writing(page).fill("the cat")
    run_button(page).click()
    expect(page.get_by_role("alert")).to_have_text("The server is busy or restarting; try again soon.")
    page.route("**/v1/models", lambda route: route.fulfill(body=body.removeprefix('{"error"')))
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The answer is not Bluejay's or not complete. Reload the page")


def test_lost_connection_keeps_the_text_received(page):
    event = 'data: {"choices": [{"index": 0, "text": " sat", "logprobs": null, "finish_reason": null}]}\n\n'
    page.route("**/v1/completions", lambda route: route.fulfill(content_type="text/event-stream", body=event))
    writing(page).fill("the cat")
    run_button(page).click()
    expect(page.get_by_role("alert")).to_contain_text("connection to the server was lost")
    expect(page.locator("#report")).to_contain_text("interrupted")
    assert text_of(page) == "the cat sat"


def test_colours_that_stay_are_not_drawn_again(page, answer_with):
    answer_with(page, " sat on", " the mat")
    writing(page).fill("the cat")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("the model ended the text")
    assert models_words(page) == [" sat on the mat"]
    page.evaluate("[window.before] = CSS.highlights.get('model')")
    writing(page).press("End")
    page.keyboard.type(" and")
    assert models_words(page) == [" sat on the mat"]
    assert page.evaluate("CSS.highlights.get('model').has(window.before)")
