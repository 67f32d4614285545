"""Probabilities of the model's tokens, their alternatives, resampling, and samples side by side."""

import pytest
from playwright.sync_api import Page, expect

from tests.serve.page.test_run import HIGHLIGHTED, run_button, show_probabilities, text_of, writing
from tests.waiting import eventually

CAT = [
    (" sat", 0.9, {" sat": 0.9, " lay": 0.06, " was": 0.02}),
    (" on", 0.6, {" on": 0.6, " in": 0.2, ".": 0.1}),
    (" my", 0.03, {" the": 0.7, " a": 0.2, " my": 0.03, "<|endoftext|>": 0.02, "bytes:\\xe6": 0.01}),
    (" mat", 0.3, {" mat": 0.3, " lap": 0.2}),
]


@pytest.fixture
def written(open_page, answer_with):
    """Opens a page on which the model has written CAT and probabilities are shown."""

    def opened(size: str = "desktop") -> Page:
        page = open_page(size)
        answer_with(page, *CAT)
        writing(page).fill("the cat")
        run_button(page).click()
        expect(page.locator("#report")).to_contain_text("the model ended the text")
        show_probabilities(page)
        return page

    return opened


def middle_of(page: Page, start: int, end: int) -> tuple[float, float]:
    """The middle of a part of the text on the screen."""
    find = """([start, end]) => {
        const range = document.createRange();
        const node = document.getElementById("mirror").firstChild;
        range.setStart(node, start);
        range.setEnd(node, end);
        return range.getBoundingClientRect().toJSON();
    }"""
    box = page.evaluate(find, [start, end])
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_colour_and_line_say_how_likely_a_token_was(written):
    page = written()
    expect(page.locator("#legend")).to_be_visible()
    levels = [page.evaluate(HIGHLIGHTED, f"p{i}") for i in range(5)]
    assert levels == [[" sat"], [" on"], [" mat"], [], [" my"]]
    thickness = """level => {
        const style = getComputedStyle(document.getElementById("mirror"), `::highlight(p${level})`);
        return parseFloat(style.textDecorationThickness) || 0;
    }"""
    assert [page.evaluate(thickness, level) for level in range(5)] == [0, 1, 2, 3, 4]
    page.get_by_role("button", name="Probabilities").click()
    assert page.evaluate(HIGHLIGHTED, "p4") == [] and page.evaluate(HIGHLIGHTED, "model") == [" sat on my mat"]
    expect(page.locator("#legend")).to_be_hidden()


def test_hovering_shows_the_alternatives_and_choosing_one_rewrites_from_there(written, answer_with):
    page = written()
    page.mouse.move(*middle_of(page, 14, 17))
    card = page.get_by_role("group", name="Alternatives")
    expect(card).to_be_visible()
    expect(card.locator("p")).to_have_text("␣my 3%")
    assert card.locator("li").all_text_contents() == [
        "␣the70%",
        "␣a20%",
        "␣my3%",
        "end of text2%",
        "bytes:\\xe61%",
    ]
    expect(card.get_by_role("button", name="␣my")).to_be_disabled()
    expect(card.get_by_role("button", name="bytes")).to_be_disabled()
    answer_with(page, " roof", ".")
    with page.expect_request("**/v1/completions") as sent:
        card.get_by_role("button", name="␣the").click()
    assert sent.value.post_data_json["prompt"] == "the cat sat on the"
    expect(page.locator("#text")).to_have_value("the cat sat on the roof.")
    expect(card).to_be_hidden()
    # The chosen token has its own probability now, and both changes can be undone.
    assert eventually(lambda: page.evaluate(HIGHLIGHTED, "p1")[:2] == [" on", " the"])
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    assert text_of(page) == "the cat sat on my mat"


def test_typing_closes_the_popover_whose_place_in_the_text_may_have_moved(written):
    page = written()
    writing(page).press("Home")
    page.mouse.move(*middle_of(page, 14, 17))
    card = page.get_by_role("group", name="Alternatives")
    expect(card).to_be_visible()
    page.keyboard.type("x")
    expect(card).to_be_hidden()


def test_a_pointer_on_a_long_text_measures_only_the_tokens_beside_it(page, answer_with):
    answer_with(page, *[" word"] * 300)
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("the model ended the text")
    show_probabilities(page)
    page.evaluate("""() => {
        const { getClientRects } = Range.prototype;
        window.measured = 0;
        Range.prototype.getClientRects = function () { window.measured++; return getClientRects.call(this); };
    }""")
    page.mouse.move(*middle_of(page, 1400, 1405))
    expect(page.get_by_role("group", name="Alternatives")).to_be_visible()
    assert page.evaluate("window.measured") < 10


def test_choosing_the_end_of_the_text_ends_it(written):
    page = written()
    page.mouse.move(*middle_of(page, 14, 17))
    page.get_by_role("button", name="end of text").click()
    assert text_of(page) == "the cat sat on"
    expect(run_button(page)).to_be_enabled()


def test_popover_closes_when_the_pointer_leaves_and_stays_until_it_is_reached(written):
    page = written()
    x, y = middle_of(page, 14, 17)
    card = page.locator("#alternatives")
    for _ in range(5):  # a busy machine may move the pointer more slowly than the page waits
        page.mouse.move(x, y)
        expect(card).to_be_visible()
        page.mouse.move(x + 20, y + 60, steps=6)
        page.evaluate("new Promise(done => setTimeout(done, 250))")  # later than the page's own timers
        if card.is_visible():
            break
    expect(card).to_be_visible()
    page.mouse.move(700, 600)
    expect(card).to_be_hidden()


def test_caret_opens_the_popover_and_tab_leads_to_the_alternatives(written, answer_with):
    page = written()
    writing(page).focus()
    page.keyboard.press("End")
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#announcement")).to_have_text("“ mat” 30%. Tab for alternatives.")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="␣lap")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#alternatives")).to_be_hidden()
    expect(writing(page)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    answer_with(page, " bed")
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_value("the cat sat on my lap bed")


def test_tap_opens_the_popover_without_a_keyboard(written, answer_with):
    page = written("phone")
    page.locator("#model").focus()
    page.touchscreen.tap(*middle_of(page, 18, 21))
    card = page.locator("#alternatives")
    expect(card).to_be_visible()
    expect(writing(page)).not_to_be_focused()
    box = card.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    answer_with(page, " hat")
    with page.expect_request("**/v1/completions") as sent:
        card.get_by_role("button", name="Resample from here").tap()
    assert sent.value.post_data_json["prompt"] == "the cat sat on my"
    expect(page.locator("#text")).to_have_value("the cat sat on my hat")
    page.touchscreen.tap(*middle_of(page, 1, 3))  # the user's own words open no popover
    expect(writing(page)).to_be_focused()


def test_resampling_uses_a_new_seed_even_if_one_is_set(written, answer_with):
    page = written()
    page.get_by_role("tab", name="More").click()
    page.get_by_label("Seed").fill("17")
    page.mouse.move(*middle_of(page, 8, 10))
    with page.expect_request("**/v1/completions") as sent:
        page.get_by_role("button", name="Resample from here").click()
    assert sent.value.post_data_json["prompt"] == "the cat"
    assert sent.value.post_data_json["seed"] != 17


def test_samples_stream_side_by_side_and_one_is_kept(page):
    writing(page).fill("the cat")
    page.get_by_role("tab", name="More").click()
    page.get_by_role("spinbutton", name="Samples").fill("3")
    page.get_by_label("Length").fill("48")
    run_button(page).click()
    cards = page.locator(".sample")
    for i in range(3):
        expect(cards.nth(i)).not_to_be_empty()
    expect(page.locator("#report")).to_contain_text("144 tokens")
    texts = cards.all_text_contents()
    assert len(set(texts)) == 3 and text_of(page) == "the cat"
    tops = {card.bounding_box()["y"] for card in cards.all()}
    assert len(tops) == 1  # side by side
    page.get_by_role("button", name="Keep this one: sample 2").click()
    assert text_of(page) == "the cat" + texts[1]
    expect(cards).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(cards).to_have_count(3)
    page.get_by_role("button", name="Discard all").click()
    expect(cards).to_have_count(0)
    assert text_of(page) == "the cat"
