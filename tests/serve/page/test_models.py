"""The chooser of a model: which one writes, and what each is good for; on desktops and phones, in both themes."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from bluejay.infer.model import Model
from bluejay.serve.api.model_catalogue import Catalogue, catalogue_of
from bluejay.serve.api.offered import Offered
from bluejay.serve.settings import ServeSettings
from tests.serve.page.test_inside import BIRTH, look_inside, section
from tests.serve.page.test_run import WORD_BY_WORD, run_button, text_of, writing
from tests.waiting import eventually

PURPOSES = {"tiny": "Continues texts.", "second": "Writes Python functions from their first line."}


@pytest.fixture(scope="module")
def two_models(running, model, tiny_model):
    """A server of two models."""
    settings = ServeSettings()
    first = catalogue_of(model, settings).first
    other = Model(tiny_model.gpt, tiny_model.tokenizer, "second")
    vocab_size = other.tokenizer.vocab_size
    second = Offered("second", other.config, lambda: other, vocab_size, good_for=PURPOSES["second"])
    with running(Catalogue([first, second], settings), settings) as server:
        yield server


def open_chooser(page: Page, name: str = "tiny"):
    page.get_by_role("button", name=name).click()
    return page.get_by_role("group", name="Which model writes")


def test_the_chosen_model_writes_and_is_remembered(open_page, two_models, answer_with):
    page = open_page(url=two_models.url)
    chooser = open_chooser(page)
    for name, purpose in PURPOSES.items():
        expect(chooser.locator("label", has_text=name)).to_contain_text(purpose)
    expect(chooser.get_by_role("radio", name="tiny")).to_be_checked()
    with page.expect_response("**/card?model=second"):
        chooser.get_by_role("radio", name="tiny").press("ArrowDown")
    second = chooser.get_by_role("radio", name="second")
    expect(second).to_be_checked()
    expect(second).to_be_focused()
    expect(page.locator("#model")).to_have_text("second")
    expect(page.locator("#announcement")).to_have_text("second writes from now on.")
    expect(page.get_by_role("tabpanel", name="Model")).to_contain_text("64 tokens, prompt and answer together")
    writing(page).fill("the cat")
    page.get_by_label("Length").fill("8")
    with page.expect_request("**/v1/completions?model=second"):
        run_button(page).click()
    expect(page.locator("#report")).to_contain_text(re.compile(r"second · \d tokens?"))
    page.reload()
    expect(page.locator("#model")).to_have_text("second")
    # The sources and the inside are those of the model that was chosen last.
    with page.expect_request("**/v1/trace?model=second"):
        page.get_by_role("button", name="Sources").click()
    page.get_by_role("button", name="second").click()
    with page.expect_request("**/v1/trace?model=tiny"):
        chooser.get_by_role("radio", name="tiny").check()


def test_a_model_that_is_being_loaded_is_told_from_a_server_that_hangs(open_page, two_models):
    page, held = open_page(url=two_models.url, own=True), []

    def not_loaded(route: Route) -> None:
        models = route.fetch().json()
        models["data"][1]["loaded"] = False
        route.fulfill(json=models)

    page.route("**/v1/models*", not_loaded)
    page.route("**/v1/completions?model=second", lambda route: held.append(route))
    page.clock.install()
    open_chooser(page).get_by_role("radio", name="second").check()
    page.get_by_label("Length").fill("8")
    for told in ("is loading the model: no text", "has not answered"):
        with page.expect_request("**/v1/completions?model=second"):
            run_button(page).click()
        page.clock.run_for(5000)
        expect(page.locator("#report")).to_contain_text(f"The server {told} for ")
        held.pop().continue_()
        expect(page.locator("#report")).to_contain_text("second · ")


def test_one_model_is_no_choice(page):
    page.get_by_role("button", name="tiny").click()
    expect(page.get_by_role("tabpanel", name="Model")).to_contain_text("1024 tokens")
    expect(page.get_by_role("radio")).to_have_count(0)
    with page.expect_request("**/v1/completions"):  # without a query
        run_button(page).click()


def test_a_model_that_the_server_has_got_meanwhile_can_be_chosen(open_page, running, model, tiny_model):
    settings = ServeSettings()
    models = Catalogue([catalogue_of(model, settings).first], settings, may_grow=True)
    with running(models, settings) as server:
        page = open_page(url=server.url)
        chooser = open_chooser(page)
        expect(page.get_by_role("tabpanel", name="Model")).to_contain_text("1024 tokens")
        expect(chooser).to_be_hidden()
        other = Model(tiny_model.gpt, tiny_model.tokenizer, "second")
        models.add(Offered("second", other.config, lambda: other, other.tokenizer.vocab_size))
        open_chooser(page)
        chooser.get_by_role("radio", name="second").check()
        page.get_by_label("Length").fill("8")
        with page.expect_request("**/v1/completions?model=second"):
            run_button(page).click()
        expect(page.locator("#report")).to_contain_text(re.compile(r"second · \d tokens?"))


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
def test_the_chooser_is_accessible_and_fits(open_page, two_models, size, scheme):
    page = open_page(size, scheme, url=two_models.url)
    chooser = open_chooser(page)
    expect(chooser).to_be_visible()
    assert Axe().run(page).response["violations"] == []
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for label in chooser.locator("label").all():
        box = label.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] >= 44


def test_a_text_is_credited_to_the_model_that_wrote_it(open_page, two_models, answer_with):
    """The other model is chosen while the first one writes."""
    page = open_page(url=two_models.url)
    chooser = open_chooser(page)
    page.evaluate(WORD_BY_WORD)
    run_button(page).click()
    assert eventually(lambda: page.evaluate("'write' in globalThis"))
    page.evaluate("write('a word', 'tiny')")
    chooser.get_by_role("radio", name="second").check()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#report")).to_contain_text("tiny · 1 token")
    expect(page.locator("#model")).to_have_text("second")


def test_the_page_notices_that_the_server_has_another_model(open_page, running, model, tiny_model):
    with running(model) as server:
        page = open_page(url=server.url)
        port = int(server.url.rpartition(":")[2])
    with running(Model(tiny_model.gpt, tiny_model.tokenizer, "second"), port=port):
        page.get_by_label("Length").fill("8")
        writing(page).fill("the cat")
        run_button(page).click()
        expect(page.locator("#model")).to_have_text("second")
        expect(page.locator("#report")).to_contain_text(re.compile(r"second · \d tokens?"))
        expect(page.get_by_label("Length")).to_have_attribute("max", "64")


def test_how_it_learnt_is_that_of_the_chosen_model(open_page, two_models):
    page = open_page(url=two_models.url)
    page.route(
        "**/v1/lens/checkpoints?model=tiny", lambda route: route.fulfill(json={"data": [{"name": "step-1"}] * 3})
    )
    look_inside(page, "the cat")
    expect(section(page, BIRTH)).to_contain_text("The run kept 3 models.")
    open_chooser(page).get_by_role("radio", name="second").check()
    expect(page.locator("#model")).to_have_text("second")
    look_inside(page, "the cat")
    expect(section(page, BIRTH)).to_contain_text("kept no checkpoints")


def test_no_checkpoint_is_asked_of_a_model_that_was_chosen_meanwhile(open_page, two_models):
    page = open_page(url=two_models.url)
    held, asked = [], []
    steps = [{"name": "step-1"}, {"name": "step-2"}]
    page.route("**/v1/lens/checkpoints?model=tiny", lambda route: route.fulfill(json={"data": steps}))
    page.route("**/v1/lens/checkpoints/step-1?model=tiny", lambda route: held.append(route))
    page.on("request", lambda request: asked.append(request.url.rpartition("/v1/lens/")[2]))
    look_inside(page, "the cat")
    with page.expect_request("**/v1/lens/checkpoints/step-1?model=tiny"):
        section(page, BIRTH).get_by_role("button", name="Show the run").click()
    open_chooser(page).get_by_role("radio", name="second").check()
    expect(page.locator("#model")).to_have_text("second")
    assert eventually(lambda: held or page.wait_for_timeout(20))
    with page.expect_response("**/v1/lens/checkpoints/step-1?model=tiny"):
        held[0].fulfill(json={})
    look_inside(page, "the cat")
    expect(section(page, BIRTH)).to_contain_text("kept no checkpoints")
    assert [name for name in asked if name.endswith("second") and name.startswith("checkpoints")] == [
        "checkpoints?model=second"
    ]


def test_sources_are_those_of_the_chosen_model(open_page, two_models):
    """The other model is chosen while the first one's answer is on its way."""
    page = open_page(url=two_models.url)
    late = []

    def trace(route):
        name = route.request.url.rpartition("=")[2]
        if route.request.method == "GET":
            corpora = [{"name": f"the corpus of {name}", "tokens": 5}]
            return route.fulfill(json={"available": True, "charged": False, "corpora": corpora, "index": None})
        if name == "tiny":
            return late.append(route)
        return route.fulfill(json=found(name))

    def found(name: str) -> dict:
        places = {"start_char": 0, "end_char": len("the cat")}
        kind = "quoted" if name == "tiny" else "new"
        return {"text": "the cat", "spans": [], "segments": [{"kind": kind, **places}], "notes": []}

    page.route("**/v1/trace?model=*", trace)
    writing(page).fill("the cat")
    page.get_by_role("button", name="Sources").click()
    assert eventually(lambda: late or page.wait_for_timeout(20))
    open_chooser(page).get_by_role("radio", name="second").check()
    with page.expect_response("**/v1/trace?model=tiny"):
        late[0].fulfill(json=found("tiny"))
    expect(page.get_by_role("region", name="Sources of the text")).to_contain_text("100% new")


def test_a_length_that_the_context_does_not_hold_is_said_and_comes_back(open_page, two_models):
    page = open_page(url=two_models.url)
    chooser, length = open_chooser(page), page.get_by_label("Length")
    length.fill("1000")
    chooser.get_by_role("radio", name="second").check()
    expect(page.get_by_role("alert")).to_have_text("Length is now 64: the model's context has no more.")
    expect(length).to_have_value("64")
    page.reload()
    expect(page.get_by_role("alert")).to_have_text("Length is now 64: the model's context has no more.")
    open_chooser(page, "second").get_by_role("radio", name="tiny").check()
    expect(page.locator("#error")).to_have_text("")
    expect(length).to_have_value("1000")
    page.goto("about:blank")
    page.goto(f"{two_models.url}/#prompt=a&max_tokens=1000&temperature=0.5")
    expect(page.locator("#error")).to_have_text("")
    open_chooser(page).get_by_role("radio", name="second").check()
    page.goto("about:blank")
    page.goto(f"{two_models.url}/#prompt=a&max_tokens=1000")
    expect(page.get_by_role("alert")).to_have_text("Length is now 64: the model's context has no more.")


@pytest.mark.parametrize("retry", ["Run", "Model"])
def test_models_that_were_not_known_at_first_are_asked_for_again(open_page, two_models, retry):
    page = open_page(url=two_models.url)
    open_chooser(page).get_by_role("radio", name="second").check()
    page.get_by_label("Length").fill("8")
    page.route("**/v1/models", lambda route: route.fulfill(status=503, body="{}"))
    page.reload()
    expect(page.get_by_role("alert")).to_have_text("The server is busy or restarting; try again soon.")
    page.unroute("**/v1/models")
    if retry == "Model":
        page.get_by_role("tab", name="Model").click()
        expect(page.get_by_role("radio", name="second")).to_be_checked()
        return
    writing(page).fill("the cat")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "completions" in request.url else None)
    run_button(page).dblclick()
    expect(page.locator("#report")).to_contain_text(re.compile(r"second · \d tokens?"))
    assert [url.rpartition("?")[2] for url in asked] == ["model=second"]


def test_a_run_waits_for_a_model_that_is_still_being_loaded(page, answer_with):
    answer_with(page, " sat")
    refused = []

    def refuse_once(route: Route) -> None:
        if refused:
            return route.fallback()
        refused.append(route)
        route.fulfill(status=503, json={"error": {"message": "it is being loaded", "code": "model_not_ready"}})

    page.route("**/v1/completions", refuse_once)
    writing(page).fill("the cat")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("the model ended the text")
    expect(page.locator("#error")).to_have_text("")
    assert refused and text_of(page) == "the cat sat"


@pytest.mark.parametrize(
    ("status", "told"),
    [(429, "is busy or restarting; try again soon."), (524, "is busy or"), (413, "answered with status 413.")],
)
def test_a_card_that_does_not_come_is_not_taken_for_none(page, status, told):
    page.route("**/card", lambda route: route.fulfill(status=status, body="{}"))
    page.get_by_role("tab", name="Model").click()
    expect(page.get_by_role("tabpanel", name="Model")).to_contain_text(f"The server {told}")
