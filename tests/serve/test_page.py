"""The page as people use it: in a real browser, against a real server."""

import json
import os
import re
import shutil

import pytest
from playwright.sync_api import Locator, Page, Route, expect, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MARKUP = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\"> & <b>bold</b>"


@pytest.fixture(scope="module")
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


@pytest.fixture
def context(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(context, server):
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(error))
    page.goto(server.url)
    expect(page.locator("#model")).to_have_text("tiny")
    yield page
    assert problems == []


def writing(page: Page) -> Locator:
    return page.get_by_label("Text. The model continues from its end.")


def run_button(page: Page) -> Locator:
    return page.get_by_role("button", name="Run", exact=True)


def text_of(page: Page) -> str:
    return writing(page).input_value()


def answer_with(page: Page, *texts: str) -> None:
    """Let the server's next answers be these words, each one token."""

    def fulfill(route: Route) -> None:
        choice = '{"choices": [{"index": 0, "text": %s, "finish_reason": null}]}'
        last = '{"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}'
        parts = [choice % json.dumps(text) for text in texts] + [last, "[DONE]"]
        route.fulfill(content_type="text/event-stream", body="".join(f"data: {part}\n\n" for part in parts))

    page.route("**/v1/completions", fulfill)


def test_sliders_run_stream_stop(page, worker):
    prompt = "the cat"
    writing(page).fill(prompt)
    top_p, temperature = page.get_by_label("TOP-P", exact=True), page.get_by_label("Temperature", exact=True)
    assert (top_p.input_value(), temperature.input_value()) == ("0.9", "0.8")
    top_p.focus()
    for _ in range(7):
        page.keyboard.press("ArrowLeft")
    temperature.focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    expect(page.locator("output[for=top_p]")).to_have_text("0.83")
    expect(page.locator("output[for=temperature]")).to_have_text("0.92")
    page.get_by_label("Length").press("End")

    with page.expect_request("**/v1/completions") as sent:
        run_button(page).click()
    body = sent.value.post_data_json
    assert (body["top_p"], body["temperature"], body["prompt"]) == (0.83, 0.92, prompt)
    assert body["max_tokens"] == 1024

    lengths = {len(text_of(page))}
    for _ in range(2):
        expect(page.locator("#text")).not_to_have_value(text_of(page))
        lengths.add(len(text_of(page)))
    assert len(lengths) == 3 and min(lengths) >= len(prompt)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#report")).to_contain_text("stopped by you")
    text = text_of(page)
    assert text.startswith(prompt) and len(text) > len(prompt)
    page.wait_for_timeout(200)
    assert text_of(page) == text
    assert worker.engine.idle
    # The person's words and the model's stand apart, and together they are the text.
    assert page.locator("#mirror .model").text_content() == text[len(prompt) :]
    expect(page.locator("#report")).to_contain_text(re.compile(rf"\d+ tokens · .*seed {body['seed']} "))


def test_view_follows_the_end_unless_the_reader_scrolls_away(page):
    to_go = "[...document.querySelectorAll('#scroll')].map(e => e.scrollHeight - e.scrollTop - e.clientHeight)[0]"
    lines = [f" line {i} of many" if i % 2 else "\n" for i in range(400)]
    answer_with(page, *lines)
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("the model ended it")
    page.wait_for_timeout(100)
    assert page.evaluate(to_go) < 2

    page.get_by_label("Length").press("End")
    page.unroute("**/v1/completions")
    writing(page).fill("\n" * 300)
    run_button(page).click()
    expect(page.locator("#text")).not_to_have_value("\n" * 300)
    page.locator("#scroll").hover()
    page.mouse.wheel(0, -3000)
    before = text_of(page)
    expect(page.locator("#text")).not_to_have_value(before)
    page.wait_for_timeout(100)
    assert page.evaluate(to_go) > 1000
    page.keyboard.press("Escape")


def test_keyboard_alone(page):
    writing(page).fill("the cat")
    page.get_by_label("Length").press("End")
    writing(page).press("Control+Enter")
    expect(page.locator("#text")).not_to_have_value("the cat")
    page.keyboard.press("Escape")
    expect(page.locator("#announcement")).to_contain_text("Stopped. ")
    after = text_of(page)
    writing(page).press("Control+z")
    assert text_of(page) == "the cat"
    page.get_by_role("button", name="Redo").click()
    assert text_of(page) == after
    # The two buttons hand the keyboard's place to each other.
    run_button(page).press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    page.keyboard.press("Enter")
    expect(run_button(page)).to_be_focused()


def test_seed_that_is_no_number_is_pointed_at(page):
    writing(page).fill("the cat")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Seed").fill("seven")
    page.get_by_text("More", exact=True).click()
    writing(page).press("Control+Enter")
    expect(page.get_by_label("Seed")).to_be_focused()
    assert text_of(page) == "the cat"


def test_same_seed_same_text(page):
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Seed").fill("17")
    page.get_by_label("Length").fill("24")
    texts = []
    for _ in range(2):
        writing(page).fill("the cat")
        page.keyboard.press("Shift+Enter")
        expect(page.locator("#report")).to_contain_text("24 tokens · ")
        expect(page.locator("#report")).to_contain_text("seed 17 · reached the length · context 29 of 1024")
        texts.append(text_of(page))
    assert texts[0] == texts[1] != "the cat"


def test_markup_stays_text(page):
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
    expect(page.locator("#report")).to_contain_text("the model ended it")
    assert text_of(page) == MARKUP * 2
    assert page.locator("#mirror .model").text_content() == MARKUP
    assert page.locator("#mirror *:not(.model), #surface img, #surface script, #surface b").count() == 0
    assert page.title() == "Bluejay"


def test_editing_makes_words_the_persons(page):
    answer_with(page, " sat on", " the mat")
    writing(page).fill("the cat")
    run_button(page).click()
    expect(page.locator("#mirror .model")).to_have_text(" sat on the mat")
    page.evaluate("document.getElementById('text').setSelectionRange(8, 11)")
    writing(page).focus()
    page.keyboard.type("lay")
    assert text_of(page) == "the cat lay on the mat"
    assert "".join(page.locator("#mirror .model").all_text_contents()) in ("  on the mat", " on the mat")
    assert page.locator("#mirror").text_content().removesuffix("\u200b") == text_of(page)


def test_mirror_lies_exactly_under_the_text(page):
    answer_with(
        page,
        "A long line that wraps somewhere, " * 9,
        "\n\n\tindented   with spaces\n",
        "日本語 and שלום עולם\r\n",
        "end\n\n",
    )
    writing(page).fill("Begin:\n")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("the model ended it")
    heights = "['text', 'mirror'].map(id => document.getElementById(id).scrollHeight)"
    text, mirror = page.evaluate(heights)
    assert text == mirror


def test_text_and_settings_survive_a_reload(page):
    answer_with(page, " sat")
    writing(page).fill("the cat")
    page.get_by_label("Temperature", exact=True).fill("1.25")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("the model ended it")
    page.reload()
    assert text_of(page) == "the cat sat"
    expect(page.locator("#mirror .model")).to_have_text(" sat")
    expect(page.locator("output[for=temperature]")).to_have_text("1.25")


def test_text_that_is_too_long_says_what_to_do_and_stays(page):
    long = "x" * 2000
    writing(page).fill(long)
    run_button(page).click()
    expect(page.get_by_role("alert")).to_contain_text("The prompt has 2000 tokens; this model reads 1024")
    expect(page.get_by_role("alert")).to_contain_text("Shorten your text")
    assert text_of(page) == long
    expect(run_button(page)).to_be_enabled()


def test_server_that_is_gone_says_so_and_the_text_stays(context, running, tiny_model):
    with running(tiny_model) as server:
        page = context.new_page()
        page.goto(server.url)
        expect(page.locator("#model")).to_have_text("tiny")
        writing(page).fill("the cat")
    run_button(page).click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    assert text_of(page) == "the cat"


def test_examples_fill_text_and_settings_and_can_be_taken_back(page):
    writing(page).fill("my own words")
    cards = page.locator("#examples button")
    assert cards.count() == 5
    for card in cards.all():
        assert card.locator("strong").text_content() and card.locator("span").text_content()
        card.click()
        setting = re.search(r"top-p ([\d.]+) · temp. ([\d.]+)", card.locator("small").text_content())
        assert page.get_by_label("TOP-P", exact=True).input_value() == setting[1]
        assert page.get_by_label("Temperature", exact=True).input_value() == setting[2]
        assert len(text_of(page)) > 20
        assert text_of(page) == text_of(page).rstrip(" \t")
    expect(cards.last).to_contain_text("never for advice")
    for _ in range(5):
        page.get_by_role("button", name="Undo").click()
    assert text_of(page) == "my own words"


def test_every_screen_holds_the_page(page):
    page.locator("#examples button").nth(2).click()
    names = ["#run", "#stop", "#top_p", "#temperature", "#max_tokens", "#examples-title", "#scroll"]
    for width, height in [(390, 844), (320, 640), (844, 390), (640, 360), (1280, 720)]:
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in names:
            box = page.locator(name).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
            if (width, height) in [(390, 844), (1280, 720)]:  # the first view shows all that a run needs
                assert box["y"] >= 0 and box["y"] + box["height"] <= height
        assert page.locator("#scroll").bounding_box()["height"] >= 200


def test_contrast(page):
    pairs = [(ink, paper) for ink in ("ink", "quiet", "blue") for paper in ("ground", "panel")]
    pairs += [("ink", "tint"), ("on-blue", "blue"), ("red", "ground")]
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for ink, paper in pairs:
            colours = [
                page.evaluate("name => getComputedStyle(document.documentElement).getPropertyValue(name)", f"--{name}")
                for name in (ink, paper)
            ]
            assert contrast(*colours) >= 4.5, (scheme, ink, paper)


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio of two #rrggbb colours."""

    def luminance(colour: str) -> float:
        values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


PARSE = """
async ({text, cuts}) => {
    const { events } = await import("/sse.js");
    const bytes = new TextEncoder().encode(text);
    const results = [];
    for (const size of cuts) {
        const body = new ReadableStream({
            start(controller) {
                for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
                controller.close();
            },
        });
        const found = [];
        for await (const data of events(body)) found.push(data);
        results.push(found);
    }
    return results;
}
"""


def test_events_may_be_cut_anywhere(page):
    expected = ['{"text": "añ日🐦"}', "two\nlines", "no space", "[DONE]"]
    lines = [
        ": comment",
        f"data: {expected[0]}",
        "",
        "event: x",
        "data: two",
        "data: lines",
        "",
        "data:no space",
        "",
        "",
    ]
    sizes = list(range(1, 40))
    for newline in ("\n", "\r\n", "\r"):
        text = newline.join([*lines, "data: [DONE]", "", ""])
        assert page.evaluate(PARSE, {"text": text, "cuts": sizes}) == [expected] * len(sizes)
