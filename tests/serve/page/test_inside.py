"""The panel "Inside": what the model did with the text, by mouse, touch and keyboard, on both sizes and themes."""

import json
import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from bluejay import load
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import save_model
from bluejay.gpt.init import new_model
from bluejay.infer.model import Model
from bluejay.serve.settings import PublicSettings, ServeSettings
from tests.serve.page.conftest import SIZES
from tests.serve.page.test_controls import no_barriers, sent_by, tab
from tests.serve.page.test_run import HIGHLIGHTED, next_frame, run_button, text_of, writing
from tests.serve.page.test_tokens import middle_of
from tests.waiting import eventually

SMALL = GPTConfig(n_layer=2, d_model=32, n_head=2, vocab_size=259, n_ctx=64)
TEXT = "🐦 the cat the"
LEVELS = [f"{kind}{level}" for kind in ("more", "less") for level in (1, 2, 3, 4)]
LAYER_BY_LAYER, MADE, ATTENTION = "Layer by layer", "What made it", "Attention"
WITHOUT, OTHER, STEERING, BIRTH = "Without a word", "Another text", "Steering", "How it learnt"
INDENTED = """panel => {
    const [range, edge] = [new Range(), panel.getBoundingClientRect().left + 8];
    const texts = document.createNodeIterator(panel, NodeFilter.SHOW_TEXT);
    for (let text; (text = texts.nextNode()); ) {
        range.selectNode(text);
        if ([...range.getClientRects()].some(({ left, width }) => width && left < edge)) return false;
    }
    return true;
}"""
"""Whether every line of a panel keeps a distance from the panel's edge."""


@pytest.fixture(scope="module")
def model(byte_tokenizer) -> Model:
    """Two layers, because looking inside takes a run for each layer and token."""
    gpt = new_model(GPTConfig(n_layer=2, d_model=64, n_head=2, vocab_size=259, n_ctx=256), 0).requires_grad_(False)
    gpt.head.bias[byte_tokenizer.eot] = -1e4
    return Model(gpt, byte_tokenizer, "tiny")


@pytest.fixture(scope="module")
def server(running, model):
    with running(model) as server:
        yield server


def look_inside(page: Page, text: str = TEXT) -> None:
    writing(page).fill(text)
    tab(page, "Inside")
    look = page.get_by_role("button", name="Look inside")
    look.click()
    expect(look).to_have_attribute("aria-disabled", "false")  # the answer is there, and not that of an earlier look
    expect(page.get_by_role("heading", name=MADE)).to_be_visible()


def section(page: Page, heading: str) -> Locator:
    return page.locator("section", has=page.get_by_role("heading", name=heading, exact=True))


def note(page: Page) -> Locator:
    return page.locator(".inside > p")


def drawn(page: Page, names: list[str] = LEVELS) -> list[str]:
    """The pieces of the text that something is drawn on."""
    next_frame(page)
    return [piece for name in names for piece in page.evaluate(HIGHLIGHTED, name)]


def numbers(table: Locator) -> list[float]:
    return [float(text.replace("−", "-")) for text in table.locator("tr:has(td) td").all_inner_texts()]


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        ("desktop", "dark"),
        pytest.param("desktop", "light", marks=pytest.mark.slow),
        pytest.param("phone", "dark", marks=pytest.mark.slow),
        pytest.param("phone", "light", marks=pytest.mark.slow),
    ],
)
def test_each_view(open_page, model: Model, size, scheme):
    page = open_page(size, scheme, reduced_motion="reduce")
    look_inside(page)
    expect(section(page, LAYER_BY_LAYER).locator("tr")).to_have_count(model.config.n_layer + 2)
    terms = numbers(section(page, MADE).locator("table").first)
    assert sum(terms[:-1]) == pytest.approx(terms[-1], abs=0.005 * len(terms))
    tokens = set(re.findall(r"the|.", TEXT))  # bytes of the bird are one character
    assert drawn(page) and set(drawn(page)) <= tokens
    section(page, ATTENTION).get_by_label("Head").select_option("1.1")
    section(page, ATTENTION).get_by_label("Measure").select_option("pattern")
    expect(section(page, ATTENTION).locator("tr")).to_have_count(6)
    section(page, WITHOUT).get_by_role("button").click()
    expect(section(page, WITHOUT).locator("tr")).to_have_count(6)
    section(page, OTHER).get_by_label("Changed text").fill(TEXT.replace("cat", "mat"))
    section(page, OTHER).get_by_label("Answer", exact=True).fill("the")
    section(page, OTHER).get_by_label("Changed answer").fill("c")
    section(page, OTHER).get_by_label("Changed answer").press("Enter")  # presses Patch, not Run
    expect(section(page, OTHER).locator("tr")).to_have_count(model.config.n_layer + 1)
    assert text_of(page) == TEXT
    section(page, MADE).locator("summary").click()
    section(page, STEERING).get_by_role("button").click()
    expect(section(page, STEERING)).to_contain_text(re.compile(r"from [\d.]+ to [\d.]+ bits per byte"))
    links = page.locator(".inside a")
    assert links.count() == 7 and all(re.match("https://", link.get_attribute("href") or "") for link in links.all())
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert page.locator(".inside").evaluate(INDENTED)
    no_barriers(page)


def test_a_token_is_chosen_by_click_keys_and_buttons(page, model: Model):
    look_inside(page)
    expect(note(page)).to_contain_text("which comes next")
    at = TEXT.index("cat") + 1  # UTF-16 units of the page: one more than in Python
    page.mouse.click(*middle_of(page, at, at + 1))
    page.mouse.move(0, 0)  # the click counts though the pointer does not rest
    expect(note(page)).to_contain_text("Explained: “c”.")
    assert drawn(page, ["chosen"]) == ["c"]
    writing(page).evaluate("(text, at) => text.setSelectionRange(at, at)", at)
    page.keyboard.press("ArrowRight")
    expect(note(page)).to_contain_text("Explained: “a”.")
    expect(page.locator("#announcement")).to_contain_text("Explained: “a”.")
    page.get_by_role("button", name="Next token").press("Enter")
    expect(note(page)).to_contain_text("Explained: “t”.")
    page.get_by_role("button", name="Previous token").click()
    expect(note(page)).to_contain_text("Explained: “a”.")
    lens = model.lens()
    before = TEXT[: TEXT.index("cat") + 1]
    likeliest = lens.text(int(lens.run(before).logits[0, -1].argmax()))
    assert likeliest.isprintable() and f"Likeliest here: “{likeliest}" in note(page).inner_text().replace("␣", " ")
    look_inside(page, "cat")
    expect(note(page)).to_contain_text("which comes next")
    writing(page).press("Home")
    expect(note(page)).to_contain_text("Nothing comes before the first token")


def test_on_a_slow_network_the_last_press_counts_and_no_button_loses_the_focus(page):
    look_inside(page)
    held = []
    page.route("**/v1/lens*", lambda route: held.append(route))
    before = page.get_by_role("button", name="Previous token")
    for _ in range(3):
        before.press("Enter")
    assert eventually(lambda: len(held) == 3 or page.wait_for_timeout(20))
    positions = [route.request.post_data_json["position"] for route in held]
    assert positions[0] - 2 == positions[1] - 1 == positions[2]
    for route in reversed(held):
        route.continue_()
    expect(note(page)).to_contain_text("Explained: “t”.")
    page.unroute("**/v1/lens*")
    for _ in TEXT:
        before.press("Enter")
    expect(before).to_be_disabled()
    expect(before).to_be_focused()
    look, looks = page.get_by_role("button", name="Look inside"), []

    def hold_look(route: Route) -> None:
        """Hold the next look; what explains a token may still be on its way."""
        route.continue_() if "position" in route.request.post_data_json else looks.append(route)

    page.route("**/v1/lens*", hold_look)
    look.press("Enter")
    assert eventually(lambda: looks or page.wait_for_timeout(20))
    expect(look).to_be_disabled()
    expect(look).to_be_focused()
    writing(page).fill("another text")
    looks.pop().continue_()
    expect(note(page)).to_have_text("The text changed while it was looked at. Look inside again.")
    expect(page.get_by_role("heading", name=MADE)).to_be_hidden()


def test_what_cannot_be_steered_does_not_keep_the_model_from_writing(page):
    look_inside(page)
    page.get_by_label("Length").fill("8")
    section(page, STEERING).get_by_label("Layer").fill("70")
    section(page, STEERING).get_by_role("button").click()
    expect(section(page, STEERING)).to_contain_text("This cannot be steered; the slider is at zero.")
    expect(page.locator(".sliders").get_by_label("Steering")).to_have_value("0")
    section(page, STEERING).get_by_label("Layer").fill("1.5")
    section(page, STEERING).get_by_role("button").click()
    expect(section(page, STEERING).get_by_label("Layer")).to_be_focused()
    sent_by(page, run_button(page).click)
    look_inside(page)
    section(page, STEERING).get_by_label("Layer").fill("")
    section(page, STEERING).get_by_role("button").click()
    expect(page.locator(".sliders").get_by_label("Steering")).to_have_value("1")
    expect(section(page, STEERING)).to_contain_text("bits per byte")
    section(page, STEERING).get_by_label("Steer away").fill(" ")
    section(page, STEERING).get_by_role("button").click()
    expect(section(page, STEERING)).to_contain_text("Both fields need a text.")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("steered by 1")


@pytest.mark.slow
def test_a_finger_chooses_a_token_without_a_keyboard(open_page):
    page = open_page("phone")
    look_inside(page)
    at = TEXT.index("cat") + 1
    page.locator("#model").focus()
    tab(page, "Inside")
    page.touchscreen.tap(*middle_of(page, at, at + 1))
    expect(note(page)).to_contain_text("Explained: “c”.")
    expect(writing(page)).not_to_be_focused()


def test_marks_go_with_the_text_that_was_looked_at_and_with_the_tab(page):
    look_inside(page)
    assert drawn(page)
    tab(page, "Examples")
    assert not drawn(page)
    tab(page, "Inside")
    assert drawn(page)
    writing(page).press("x")
    expect(note(page)).to_have_text("The text has changed since it was looked at.")
    assert not drawn(page)
    expect(page.get_by_role("heading", name=MADE)).to_be_hidden()
    writing(page).press("Backspace")
    expect(note(page)).to_contain_text("which comes next")
    assert drawn(page)
    writing(page).press("x")
    page.get_by_role("button", name="Look inside").click()
    expect(page.get_by_role("heading", name=MADE)).to_be_visible()


def test_of_a_long_text_the_end_is_looked_at_and_mistakes_are_sentences(page):
    look_inside(page, "the cat " * 400)  # longer than the model's context
    expect(note(page)).to_contain_text("Only the end of the text was looked at.")
    section(page, OTHER).get_by_label("Changed text").fill("the cat")
    section(page, OTHER).get_by_role("button", name="Patch").click()
    expect(note(page)).to_contain_text("activations are patched between prompts of equal length")
    section(page, OTHER).get_by_label("Changed text").fill("x" * 100_001)
    section(page, OTHER).get_by_role("button", name="Patch").click()
    expect(note(page)).to_contain_text("100,001 bytes")
    section(page, STEERING).get_by_label("Layer").fill("70")
    section(page, STEERING).get_by_role("button").click()
    expect(note(page)).to_contain_text("There is no layer 70")


def test_the_steering_slider_steers_what_is_written(page, model: Model):
    writing(page).fill("the cat")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Length").fill("8")
    look_inside(page, "the cat")
    section(page, STEERING).get_by_label("Steer toward").fill("the cat\nthe mat")
    section(page, STEERING).get_by_label("Steer away").fill("zq xv")
    section(page, STEERING).get_by_role("button").click()
    slider = page.locator(".sliders").get_by_label("Steering")
    expect(slider).to_have_value("1")
    slider.fill("4")
    expect(section(page, STEERING)).to_contain_text("Torch writes what is steered")
    with page.expect_request("**/v1/lens/completions") as sent:
        run_button(page).click()
    expect(page.locator("#report")).to_contain_text("steered by 4")
    assert sent.value.post_data_json["steering"] == {"toward": ["the cat", "the mat"], "away": ["zq xv"], "strength": 4}
    steered = text_of(page)
    assert len(steered) > len("the cat")
    slider.fill("0")
    writing(page).fill("the cat")
    sent_by(page, run_button(page).click)
    expect(page.locator("#report")).not_to_contain_text("steered")
    assert text_of(page) == "the cat" + model.generate("the cat", max_tokens=8, temperature=0.0)[0]


@pytest.fixture(scope="module")
def with_run(tmp_path_factory, byte_tokenizer) -> Model:
    """A model whose run kept two others on its way."""
    run = tmp_path_factory.mktemp("run") / "birth"
    for number, name in enumerate(("model-step-1", "model-step-20", "model")):
        save_model(new_model(SMALL, seed=number), byte_tokenizer, run / name)
    rows = [{"step": step, "loss": 5 - step / 10} for step in range(1, 31)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = load(str(run / "model"))
    model.name = "tiny"
    return model


@pytest.mark.parametrize(
    ("size", "scheme"), [("phone", "light"), pytest.param("desktop", "dark", marks=pytest.mark.slow)]
)
def test_how_a_model_learnt_over_its_run(open_page, running, with_run, size, scheme):
    with running(with_run) as server:
        page = open_page(size, scheme, url=server.url)
        look_inside(page)
        birth = section(page, BIRTH)
        birth.get_by_role("button", name="Show the run").click()
        slider = birth.get_by_label("Checkpoint")
        expect(slider).to_have_value("2")
        expect(birth).to_contain_text("100% of the run: loss 2.45, a repeated token is easier by")
        text = birth.get_by_label("What it writes")
        at_the_end = text.inner_text()
        slider.press("Home")
        expect(birth).to_contain_text("3.3% of the run: loss 4.90")
        assert text.inner_text().startswith(TEXT) and text.inner_text() != at_the_end
        slider.press("ArrowRight")
        expect(birth).to_contain_text("67% of the run: loss 3.45")
        expect(birth.locator("tr")).to_have_count(3)
        expect(birth.locator("svg path")).to_have_count(3)
        no_barriers(page)


def test_without_a_run_one_sentence_says_what_would_keep_checkpoints(page):
    look_inside(page)
    expect(section(page, BIRTH)).to_contain_text("kept no checkpoints; checkpoint.at in a recipe keeps them")


def test_strangers_are_told_that_they_cannot(open_page, running, model):
    with running(model, ServeSettings(public=PublicSettings())) as server:
        page = open_page(url=server.url)
        writing(page).fill(TEXT)
        tab(page, "Inside")
        page.get_by_role("button", name="Look inside").click()
        expect(note(page)).to_have_text("This server does not let visitors look inside.")
