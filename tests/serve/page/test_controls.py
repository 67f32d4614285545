"""Every control on a desktop and on a phone, in both themes, with an accessibility check of each view."""

import re
from contextlib import ExitStack

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from bluejay.evals.estimates import Estimate
from bluejay.evals.evaluation_file import NAME, write_summary
from bluejay.terminal.assets import EXAMPLES
from tests.serve.page.conftest import SIZES
from tests.serve.page.test_run import open_more, run_button, show_probabilities, text_of, writing

NOTE_USE = """() => {
    window.used = new Set();
    const note = ({ target }) => {
        const control = target.closest("button, input, select, textarea");
        if (control) window.used.add(control.id || control.textContent);
    };
    for (const kind of ["click", "input"]) document.addEventListener(kind, note, true);
}"""
UNUSED = """() => [...document.querySelectorAll("button, input, select, textarea")]
    .map(one => one.id || one.textContent).filter(name => !window.used.has(name))"""
CAT = (" sat", 0.9, {" sat": 0.9, " lay": 0.06}), (" on", 0.6, {" on": 0.6, " in": 0.2}), (" my", 0.03, {" the": 0.7})
SETTINGS = {
    "Seed": ("17", "seed", 17),
    "Top-k": ("40", "top_k", 40),
    "Min-p": ("0.05", "min_p", 0.05),
    "Typical-p": ("0.95", "typical_p", 0.95),
    "Logit bias": ("65=-100\n66=1.5", "logit_bias", {"65": -100, "66": 1.5}),
    "Stop before": ("END\n\\n\\n", "stop", ["END", "\n\n"]),
    "Repetition penalty": ("1.2", "repetition_penalty", 1.2),
    "Presence penalty": ("0.5", "presence_penalty", 0.5),
    "Frequency penalty": ("-0.5", "frequency_penalty", -0.5),
}
"""Label -> (text typed, parameter of the API, its value)."""


def no_barriers(page: Page) -> None:
    """axe-core finds no violation."""
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in found] == []


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def sent_by(page: Page, press) -> dict:
    with page.expect_request("**/v1/completions") as sent:
        press()
    expect(page.locator("#report")).to_contain_text("seed")
    return sent.value.post_data_json


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        ("phone", "light"),  # desktop and dark are looked at in test_inside.py and test_sources.py
        pytest.param("desktop", "dark", marks=pytest.mark.slow),
        pytest.param("desktop", "light", marks=pytest.mark.slow),
        pytest.param("phone", "dark", marks=pytest.mark.slow),
    ],
)
def test_every_control(open_page, answer_with, slow_engine, size, scheme):
    page = open_page(size, scheme, reduced_motion="reduce")
    page.evaluate(NOTE_USE)
    width, height = SIZES[size]
    for name in [
        "#text",
        "#run",
        "#stop",
        "#top_p",
        "#temperature",
        "#max_tokens",
        "[role=tab] >> nth=1",
        "#examples li",
    ]:
        box = page.locator(name).first.bounding_box()  # nothing of the first view is cut off
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, name
        assert box["y"] >= 0 and box["y"] + box["height"] <= height, name
    no_barriers(page)

    examples_fill_text_and_settings(page)
    for label, value in (("Top-p", "0.5"), ("Temperature", "1.1"), ("Length", "64")):
        page.get_by_label(label, exact=True).fill(value)
    answer_with(page, *CAT)
    writing(page).fill("the cat")
    sent = sent_by(page, run_button(page).click)
    assert (sent["top_p"], sent["temperature"], sent["max_tokens"]) == (0.5, 1.1, 64)
    assert text_of(page) == "the cat sat on my"

    page.get_by_role("button", name="Undo").click()
    assert text_of(page) == "the cat"
    page.get_by_role("button", name="Redo").click()
    assert text_of(page) == "the cat sat on my"

    show_probabilities(page)
    writing(page).focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#alternatives")).to_be_visible()
    no_barriers(page)
    sent = sent_by(page, page.get_by_role("button", name="␣the").click)
    assert sent["prompt"] == "the cat sat on the"
    page.keyboard.press("ArrowLeft")
    sent = sent_by(page, page.get_by_role("button", name="Resample from here").click)
    assert sent["prompt"] in ("the cat sat on", "the cat sat on the")
    page.get_by_role("button", name="Probabilities").click()

    settings_reach_the_api(page)
    with slow_engine():
        samples_are_stopped(page)
    samples_can_be_kept_and_discarded(page)
    link_restores(page, open_page, size)

    page.locator("#model").click()
    expect(page.get_by_role("tab", name="Model")).to_be_focused()
    tab(page, "Model")
    expect(page.get_by_role("tabpanel", name="Model")).to_contain_text("1024 tokens")
    no_barriers(page)
    tab(page, "History")
    expect(page.locator("[aria-label=History] li button").nth(3)).to_be_visible()
    no_barriers(page)
    page.locator("[aria-label=History] li button").last.click()
    assert text_of(page) == "the cat sat on my"
    expect(page.get_by_label("Top-p", exact=True)).to_have_value("0.5")
    page.get_by_role("button", name="Delete all").click()
    assert page.locator("[aria-label=History] li button").count() == 0
    page.get_by_role("button", name="Bring back").click()
    assert page.locator("[aria-label=History] li button").count() > 3
    page.get_by_role("button", name="Delete all").click()
    # Two have tests of their own, the third is shown only if the server asks for a key.
    assert page.evaluate(UNUSED) == ["sources", "Inside", "api_key"]


def examples_fill_text_and_settings(page: Page) -> None:
    writing(page).fill("my own words")
    cards = page.locator("#examples button")
    titles = cards.locator("strong").all_text_contents()
    assert len(titles) == 7
    for card, example in zip(cards.all(), EXAMPLES, strict=True):
        card.click()
        figures = re.search(r"top-p ([\d.]+) · temp. ([\d.]+)", card.text_content())
        assert page.get_by_label("Top-p", exact=True).input_value() == figures[1]
        assert page.get_by_label("Temperature", exact=True).input_value() == figures[2]
        assert text_of(page) == example["text"]
        assert card.locator("span").text_content() == example["watch_for"]
    expect(cards.last).to_contain_text("Terminate a person?")
    expect(cards.last).to_contain_text("Never follow it. It is measured by BBQ")
    for _ in titles:
        page.get_by_role("button", name="Undo").click()
    assert text_of(page) == "my own words"


def settings_reach_the_api(page: Page) -> None:
    open_more(page)
    for label, (value, *_) in SETTINGS.items():
        page.get_by_label(label).fill(value)
    page.get_by_label("Font").select_option("code")
    page.get_by_label("Stop at function end").click()
    no_barriers(page)
    sent = sent_by(page, run_button(page).click)
    assert {name: sent[name] for _, name, _ in SETTINGS.values()} == {
        name: value for _, name, value in SETTINGS.values()
    }
    page.get_by_label("Stop before").fill("")
    page.get_by_label("Stop at function end").uncheck()


def samples_are_stopped(page: Page) -> None:
    page.unroute("**/v1/completions")
    writing(page).fill("the dog")
    page.get_by_role("spinbutton", name="Samples").fill("2")
    page.get_by_label("Length").evaluate("slider => (slider.value = 1024)")
    run_button(page).click()
    expect(page.locator(".sample").first).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("article small")).to_have_text(["stopped by you"] * 2)
    no_barriers(page)


def samples_can_be_kept_and_discarded(page: Page) -> None:
    kept = page.locator(".sample").last.text_content()
    page.get_by_role("button", name="Keep this one: sample 2").click()
    assert text_of(page) == "the dog" + kept
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Keep this one: sample 1").click()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Discard all").click()
    assert page.locator("article").count() == 0


def link_restores(page: Page, open_page, size: str) -> None:
    """A link restores the prompt and the settings, and the answer if that was chosen."""
    writing(page).fill('a "cat" & <b>\nשלום')
    page.evaluate("document.querySelector('#n').value = 1")
    page.unroute("**/v1/completions")
    tab(page, "Examples")  # on a phone the other tabs hide the sliders
    page.get_by_label("Length").fill("8")
    sent_by(page, run_button(page).click)
    whole = text_of(page)
    tab(page, "More")
    for asked in (False, True):
        if asked:
            page.get_by_label("Link with answer").check()
        page.get_by_role("button", name=re.compile("Copy a link|Copied")).click()
        link = page.locator("#link")
        link.click()
        expect(page.locator("#announcement")).not_to_be_empty()
        other = open_page(size, url=link.input_value(), own=True)
        assert text_of(other) == (whole if asked else 'a "cat" & <b>\nשלום')
        expect(other.get_by_label("Temperature", exact=True)).to_have_value("1.1")
        open_more(other)
        expect(other.locator("#top_k")).to_have_value("40")
        expect(other.locator("#font")).to_have_value("code")
        assert "#" not in other.url  # so that a reload keeps what is written later
        other.close()


@pytest.mark.parametrize("size", ["phone", pytest.param("desktop", marks=pytest.mark.slow)])
def test_the_model_panel_shows_the_evaluation_beside_the_model(open_page, running, tiny_model, tmp_path, size):
    figure = Estimate(0.25, 0.18, 0.33, 0.04, 120, 118)
    figures = [("<piqa>", tiny_model.name, "accuracy, scores by characters", figure)]
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(tiny_model, "path", tmp_path)
        server = stack.enter_context(running(tiny_model))
        page = open_page(size, url=server.url)
        panel = page.get_by_role("tabpanel", name="Model")
        tab(page, "Model")
        expect(panel).to_contain_text("parameters")
        expect(panel.get_by_role("table")).to_have_count(0)
        write_summary(tmp_path, "2026-11-26", "bluejay eval tiny --tasks piqa", figures)
        page.reload()
        tab(page, "Model")
        expect(panel.get_by_role("table")).to_contain_text("Evaluated 2026-11-26")
        cells = panel.get_by_role("cell").all_text_contents()
        assert cells == ["<piqa>: accuracy, scores by characters", "0.250 (0.180 to 0.330)", "120"]
        lines = "one => (range => (range.selectNodeContents(one), range.getClientRects().length))(new Range())"
        assert panel.get_by_role("cell").last.evaluate(lines) == 1  # a number is not broken into its digits
        expect(panel).to_contain_text("bluejay eval tiny --tasks piqa")
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
        no_barriers(page)
        (tmp_path / NAME).write_text("{}")
        page.reload()
        tab(page, "Model")
        expect(panel).to_contain_text("evaluation.json beside the model cannot be read")
        expect(panel.get_by_role("table")).to_have_count(0)


def test_undo_has_its_place_on_keyboards_of_other_letters(page):
    writing(page).fill("the cat")
    page.get_by_role("tabpanel", name="Examples").get_by_role("button").first.click()
    assert text_of(page) != "the cat"
    key = '{ key: "я", code: "KeyZ", ctrlKey: true, bubbles: true }'
    writing(page).evaluate(f"text => text.dispatchEvent(new KeyboardEvent('keydown', {key}))")
    assert text_of(page) == "the cat"


@pytest.mark.parametrize("way", ["type", "insert_text"])  # the latter is what a paste does
def test_a_comma_is_a_decimal_sign(page, way):
    """Browsers whose language writes 1.1 would make 11 of 1,1."""
    tab(page, "More")
    page.get_by_label("Repetition penalty").select_text()
    getattr(page.keyboard, way)("1,1")
    expect(page.get_by_label("Repetition penalty")).to_have_value("1.1")


def test_a_seed_that_is_no_number_is_told_what_it_may_be(page):
    tab(page, "More")
    page.get_by_label("Seed").fill("1.5")
    told = page.get_by_label("Seed").evaluate("seed => seed.validationMessage")
    assert told == "A seed is a whole number of at most 15 digits."
