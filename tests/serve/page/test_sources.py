"""The switch "Sources": what the user types and what the model writes lead to the documents that they stand in."""

import re
import shutil
from itertools import pairwise

import pytest
from playwright.sync_api import Page, expect

from bluejay import load
from bluejay.native import native
from bluejay.trace.indexing import index
from bluejay.train.loop import train
from bluejay.train.recipe import Checkpoint, Data, Mixture, Train, TrainRecipe
from tests.serve.page.conftest import SIZES
from tests.serve.page.test_controls import no_barriers
from tests.serve.page.test_run import HIGHLIGHTED, WORD_BY_WORD, run_button, writing
from tests.serve.page.test_tokens import middle_of
from tests.trace.conftest import write_corpus
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(not hasattr(native, "first_rows"), reason="built without the native part")

SENTENCE = "the heron waits in the reeds until the water is still"
UNLICENSED = "nobody knows who wrote of the owl in the tower"
HELD_OUT = "this page was kept aside for the evaluation"
TEXTS = {
    "train": [f"Once 🪶 upon a time, {SENTENCE}; then it strikes.", f"It is said that {UNLICENSED}."],
    "valid": [f"They say {HELD_OUT}, all of it. {'Nothing else is written on the page. ' * 3}"],
}
ROWS = {
    "train": [
        {"licence": "CC-BY-4.0", "source": "herons", "component": "birds", "url": "https://example.org/heron?a=1&b=2"},
        {"licence": None, "source": "owls", "url": "javascript:alert(1)"},
    ],
    "valid": [{"licence": "MIT", "source": "pages"}],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory, byte_tokenizer):
    """A corpus with its index, and the run that trained a small model on it."""
    root = tmp_path_factory.mktemp("sources")
    ids = {
        name: [[*byte_tokenizer.encode(text), byte_tokenizer.eot] for text in texts] for name, texts in TEXTS.items()
    }
    write_corpus(root / "corpus", ids, rows=ROWS)
    byte_tokenizer.save(root / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("BLUEJAY_CACHE", str(root / "cache"))
        index(root / "corpus")
        data = Data((Mixture("corpus/tokens/train"),), sequence_length=128)
        settings = Train(tokens=128 * 3, batch_tokens=128, lr=1e-3)
        small = {"n_layer": 1, "d_model": 16, "n_head": 1}
        train(TrainRecipe("base", data, settings, small, checkpoint=Checkpoint(every_steps=2)))
    return root


@pytest.fixture(scope="module")
def traced(project):
    """The trained model, which knows its corpus."""
    model = load(str(project / "runs" / "base" / "model"))
    model.name = "tiny"
    return model


@pytest.fixture(scope="module")
def server(running, traced):
    with running(traced) as server:
        yield server


def show_sources(page: Page) -> None:
    page.get_by_role("button", name="Sources").click()
    expect(page.get_by_role("button", name="Sources")).to_have_attribute("aria-pressed", "true")


def bar(page: Page):
    return page.get_by_role("region", name="Sources of the text")


def card(page: Page):
    return page.get_by_role("group", name="Sources of a quote")


def quotes(page: Page) -> list[str]:
    return page.evaluate(HIGHLIGHTED, "quoted")


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        ("desktop", "light"),
        ("phone", "dark"),
        pytest.param("desktop", "dark", marks=pytest.mark.slow),
        pytest.param("phone", "light", marks=pytest.mark.slow),
    ],
)
def test_a_sentence_of_a_document_leads_to_it_and_its_licence(open_page, size, scheme):
    page = open_page(size, scheme, reduced_motion="reduce")
    show_sources(page)
    expect(bar(page)).to_contain_text("corpus (")
    text = f"🐦 I wrote: {SENTENCE}!"  # characters beyond 16 bits do not shift what is underlined
    writing(page).fill(text)
    expect(bar(page)).to_contain_text(re.compile(r"Text: \d+% quoted, \d+% interpolated, \d+% new"))
    assert any(SENTENCE in quote for quote in quotes(page))
    at = text.index(SENTENCE) + 6  # UTF-16 units of the page: one more than in Python
    if size == "phone":
        page.locator("#model").focus()
        page.touchscreen.tap(*middle_of(page, at, at + 1))
        expect(writing(page)).not_to_be_focused()
    else:
        page.mouse.move(*middle_of(page, at, at + 1))
    expect(card(page)).to_be_visible()
    expect(card(page).locator("p").first).to_contain_text("occurs 1 time in 1 document")
    expect(card(page).locator("summary")).to_have_text("herons · licence CC-BY-4.0")
    facts = card(page).locator("dl")
    for fact in ("birds", "CC-BY-4.0", "train", "read at step"):
        expect(facts).to_contain_text(fact)
    link = facts.get_by_role("link")
    expect(link).to_have_attribute("href", "https://example.org/heron?a=1&b=2")
    expect(link).to_have_attribute("rel", re.compile("noopener"))
    expect(card(page).locator("mark")).to_contain_text(SENTENCE)
    expect(card(page).locator("blockquote")).to_contain_text("upon a time")
    box, (width, height) = card(page).bounding_box(), SIZES[size]
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert box["y"] >= 0 and box["y"] + box["height"] <= height
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    no_barriers(page)


def test_licence_and_steps_that_are_not_known_or_never_were_are_said(page):
    show_sources(page)
    writing(page).fill(UNLICENSED)
    expect(bar(page)).to_contain_text("100% quoted")
    page.mouse.move(*middle_of(page, 20, 21))
    expect(card(page).locator("summary")).to_have_text("owls · licence unknown")
    expect(card(page).locator("dl")).to_contain_text("javascript:alert(1)")
    expect(card(page).get_by_role("link")).to_have_count(0)  # it leads nowhere on the web
    writing(page).fill(f"...{HELD_OUT}")
    expect(card(page)).to_be_hidden()
    expect(bar(page)).to_contain_text("% new")
    assert eventually(lambda: any(HELD_OUT in quote for quote in quotes(page)))
    page.mouse.move(*middle_of(page, 10, 11))
    expect(card(page).locator("dl")).to_contain_text("not read")
    expect(card(page).locator("dl")).to_contain_text("valid")


def test_keyboard_and_screen_reader(page):
    writing(page).fill(f"so {SENTENCE}")
    show_sources(page)  # which tells what of the text is quoted; what is typed afterwards is not told
    expect(page.locator("#announcement")).to_contain_text("% quoted")
    writing(page).press("Home")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#announcement")).to_contain_text("1 document. Tab for its documents.")
    page.keyboard.press("Tab")
    summary = card(page).locator("summary")
    expect(summary).to_be_focused()
    expect(card(page).locator("mark")).to_be_visible()
    page.keyboard.press("Enter")
    expect(card(page).locator("mark")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(card(page)).to_be_hidden()
    expect(writing(page)).to_be_focused()
    page.get_by_role("button", name="Next quote").press("Enter")
    expect(summary).to_be_focused()
    page.keyboard.press("Escape")
    expect(writing(page)).to_be_focused()


def test_a_quote_that_is_edited_is_no_quote_and_the_rest_moves_along(page):
    show_sources(page)
    writing(page).fill(f"{SENTENCE}. {UNLICENSED}")
    expect(bar(page)).to_contain_text("% quoted")
    page.route("**/v1/trace", lambda route: None)  # from now on the server does not answer
    writing(page).press("Control+Home")
    page.keyboard.type("x, ")
    assert eventually(lambda: quotes(page) and not any("x" in quote for quote in quotes(page)))
    assert any(UNLICENSED in quote for quote in quotes(page))
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.keyboard.type("Q")
    assert eventually(lambda: not any("heron" in quote for quote in quotes(page)))
    assert any(UNLICENSED in quote for quote in quotes(page))


TRACES = """() => performance.getEntriesByType("resource").filter(one => one.name.endsWith("/v1/trace"))
    .map(one => [one.startTime, one.responseEnd])"""


def test_quotes_are_found_while_the_model_writes_in_a_twentieth_of_the_time(page):
    """Between two questions the page waits for at least forty times as long as an answer took."""
    page.evaluate(WORD_BY_WORD)
    show_sources(page)
    writing(page).fill("once more")
    expect(bar(page)).to_contain_text("Text: ")
    run_button(page).click()
    assert eventually(lambda: page.evaluate("'write' in globalThis"))
    before = len(page.evaluate(TRACES))
    words = f" {SENTENCE}".split(" ")[1:]
    for word in words:
        page.evaluate("word => write(word)", f" {word}")
    expect(bar(page)).to_contain_text("Answer: ")
    page.mouse.move(*middle_of(page, 20, 21))
    expect(card(page)).to_be_visible()
    page.evaluate("write(' and then some')")
    assert eventually(lambda: len(page.evaluate(TRACES)) >= before + 2)
    expect(card(page)).to_be_visible()  # what is read stays
    during = page.evaluate(TRACES)[before:]
    for (start, end), (following, _) in pairwise(during):
        assert following - end >= 39 * (end - start) and following - end >= 900
    page.keyboard.press("Escape")
    expect(card(page)).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("#report")).to_contain_text("stopped by you")
    expect(page.locator("#announcement")).to_contain_text("Answer: ")


def test_switch_is_kept_and_turns_probabilities_off(page):
    writing(page).fill(f"well, {SENTENCE}")
    page.get_by_role("button", name="Probabilities").click()
    expect(page.get_by_role("button", name="Probabilities")).to_have_attribute("aria-pressed", "true")
    show_sources(page)
    expect(page.get_by_role("button", name="Probabilities")).to_have_attribute("aria-pressed", "false")
    page.reload()
    assert eventually(lambda: any(SENTENCE in quote for quote in quotes(page)))
    page.get_by_role("button", name="Sources").click()
    expect(bar(page)).to_be_hidden()
    assert eventually(lambda: quotes(page) == [])


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Nothing is known of where corpora were, and nothing is noted in the user's cache."""
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
def test_without_an_index_one_sentence_says_what_would_help_and_a_button_makes_it(
    running, open_page, project, tmp_path
):
    shutil.copytree(project, tmp_path / "moved")
    shutil.rmtree(next((tmp_path / "moved" / "corpus").rglob("*.rows")).parent)
    model = load(str(tmp_path / "moved" / "runs" / "base" / "model"))
    model.name = "tiny"
    with running(model) as bare:
        page = open_page("phone", url=bare.url)
        show_sources(page)
        expect(bar(page)).to_contain_text("Sources cannot be shown: ")
        expect(bar(page)).to_contain_text(re.compile(r"run bluejay index \S+corpus\."))
        no_barriers(page)
        make = page.get_by_role("button", name=re.compile(r"Make the index \(.* k?B, about 1 s\)"))
        writing(page).fill(SENTENCE)
        make.click()
        expect(bar(page)).to_contain_text("% quoted")
        expect(make).to_be_hidden()
    assert list((tmp_path / "moved" / "corpus" / "index").glob("*.rows"))


@pytest.mark.usefixtures("own_cache")
def test_an_index_that_cannot_be_made_is_said(running, open_page, project, tmp_path):
    shutil.copytree(project, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "corpus" / "index")
    model = load(str(tmp_path / "moved" / "runs" / "base" / "model"))
    model.name = "tiny"
    with running(model) as bare:
        page = open_page("phone", url=bare.url)
        show_sources(page)
        make = page.get_by_role("button", name=re.compile("Make the index"))
        expect(make).to_be_visible()
        (tmp_path / "moved" / "corpus" / "index").write_text("a file where the folder of the index would be")
        make.click()
        expect(bar(page)).to_contain_text("The index could not be made")


@pytest.mark.slow
def test_long_text_is_searched_at_its_end(page):
    show_sources(page)
    with page.expect_response(lambda response: response.url.endswith("/v1/trace") and response.status == 400):
        writing(page).fill("ab \n" * 2000 + SENTENCE)
    assert eventually(lambda: any(SENTENCE in quote for quote in quotes(page)))
    expect(bar(page)).to_contain_text("Not everything was searched")
