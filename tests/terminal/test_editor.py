"""The editor in a terminal, driven by keys."""

import asyncio
import os
import re
import signal
from importlib import resources

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import ColorDepth, DummyOutput

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.infer.model import Model
from bluejay.infer.params import SamplingParams
from bluejay.infer.samples import Chunk
from bluejay.terminal.annotated_text import STYLE, AnnotatedText, Sample, style_of
from bluejay.terminal.assets import EXAMPLES, PROBABILITY_THRESHOLDS
from bluejay.terminal.editor import KEYS, Editor, open_editor
from bluejay.terminal.history import History
from bluejay.terminal.menu import Menu
from bluejay.terminal.settings import Settings, link_to
from tests.waiting import PATIENCE

RUN, STOP, LEAVE, SETTINGS = "\x12", "\x03", "\x11", "\x13"
UNDO, REDO, PROBABILITIES, RESAMPLE = "\x1a", "\x19", "\x10", "\x14"
EXAMPLES_KEY, HISTORY, LINK, MODEL = "\x05", "\x0f", "\x0c", "\x07"
DOWN, PAGE_DOWN, CLEAR = "\x1b[B", "\x1b[6~", "\x15"


def alt(key: object) -> str:
    return f"\x1b{key}"


def driven(model, script, history=None, **params) -> Editor:
    """An editor after a script, which gets the editor and the functions press(keys), until(condition) and run(keys)."""

    async def play() -> Editor:
        with create_pipe_input() as keys:
            settings = Settings(SamplingParams(**params))
            editor = Editor(model, settings, history=history, input=keys, output=DummyOutput())
            screen = asyncio.create_task(editor.app.run_async())

            async def until(condition) -> None:
                async with asyncio.timeout(PATIENCE):
                    while not condition():
                        assert not screen.done()
                        await asyncio.sleep(0.01)

            async def run(keys_) -> None:
                before = editor.message
                keys.send_text(keys_)
                await until(lambda: not editor.running and editor.message != before)

            await script(editor, keys.send_text, until, run)
            keys.send_text(LEAVE)
            async with asyncio.timeout(PATIENCE):
                await screen
            return editor

    return asyncio.run(play())


def test_write_run_undo_redo_and_run_again(tiny_model):
    async def script(editor, press, until, run):
        press("the cat")
        await run(RUN)
        assert "8 tokens" in editor.message and "seed 7" in editor.message
        first = editor.annotated.text
        assert first == "the cat" + tiny_model.generate("the cat", SamplingParams(max_tokens=8, seed=7))[0]
        assert "".join(first[span.start : span.end] for span in editor.annotated.spans) == first[7:]
        press(UNDO)
        await until(lambda: editor.buffer.text == "the cat")
        press(REDO)
        await until(lambda: editor.buffer.text == first)
        press("!")
        await until(lambda: editor.buffer.text == first + "!")
        await run(RUN)
        assert editor.annotated.text.startswith(first + "!")

    driven(tiny_model, script, max_tokens=8, seed=7)


def on_screen(editor) -> str:
    """What the terminal shows, 80 columns wide."""
    screen = editor.app.renderer.last_rendered_screen
    if screen is None:
        return ""
    rows = [screen.data_buffer[number] for number in range(screen.height)]
    return "".join("".join(row[column].char for column in range(80)) for row in rows)


def test_nothing_is_cut_off_at_80_columns(tiny_model):
    async def script(editor, press, until, run):
        press("the cat")
        await run(RUN)
        await until(lambda: editor.message.rpartition(" ")[0] in on_screen(editor))
        assert max(map(len, KEYS.splitlines())) <= 80
        for line in KEYS.splitlines():
            assert f"{line.ljust(80)}" in on_screen(editor)
        press(PROBABILITIES)
        await until(lambda: editor.probabilities)
        editor._show(AnnotatedText("the cat").append(" sat", -0.1, tuple((f" word {i}", -2.0) for i in range(5))))
        editor.buffer.cursor_position = 8
        assert len(editor._alternatives()) > 80
        editor.app.invalidate()
        await until(lambda: editor._alternatives() in on_screen(editor))
        press(SETTINGS + CLEAR + "temperature=0 top_k=1 typical_p=0.5 repetition_penalty=1000000\r")
        await until(lambda: "repetition_penalty" in editor.message)
        await until(lambda: editor.message in on_screen(editor))

    driven(tiny_model, script, max_tokens=12, seed=3)


def test_a_tab_is_shown_as_blanks(tiny_model):
    async def script(editor, press, until, run):
        editor._show(AnnotatedText("for x:\n\tpass"))
        editor.samples = [Sample(AnnotatedText().append("a").append("\tb"))]
        editor.app.invalidate()
        await until(lambda: "a    b" in on_screen(editor))
        assert "    pass" in on_screen(editor) and "^I" not in on_screen(editor)

    driven(tiny_model, script)


@pytest.fixture(scope="module")
def slow_model(byte_tokenizer) -> Model:
    """Slow enough to be stopped."""
    config = GPTConfig(n_layer=6, d_model=64, n_head=2, vocab_size=259, n_ctx=1024)
    gpt = new_model(config, seed=0).requires_grad_(False)
    gpt.head.bias[byte_tokenizer.eot] = -1e4
    return Model(gpt, byte_tokenizer)


def test_stop_keeps_the_text(slow_model):
    async def script(editor, press, until, run):
        press("the cat" + RUN)
        await until(lambda: len(editor.buffer.text) > 10)
        press(STOP)
        await until(lambda: not editor.running)
        assert "stopped by you" in editor.message
        assert editor.engine.idle
        text = editor.buffer.text
        press("x")  # the text can be edited again
        await until(lambda: editor.buffer.text == text + "x")

    driven(slow_model, script, max_tokens=900, seed=1)


def test_during_a_run_a_link_is_refused_and_quitting_keeps_what_was_written(slow_model, tmp_path):
    history = History(tmp_path / "history.json")

    async def script(editor, press, until, run):
        press("the cat" + RUN)
        await until(lambda: len(editor.buffer.text) > 10)
        press(SETTINGS + CLEAR + link_to("another", Settings()) + "\r")
        await until(lambda: editor.message == "error: a link can be opened when the run has ended")
        before = len(editor.buffer.text)
        await until(lambda: len(editor.buffer.text) > before)
        assert editor.message.startswith("error") and "prompt=another" in editor.line.text

    text = driven(slow_model, script, history, max_tokens=900, seed=1).annotated.text
    (entry,) = history.entries
    assert entry.text == text and re.match(r"\d+ tokens · .* seed 1 · stopped by you", entry.note)
    assert "".join(text[start:end] for start, end in entry.spans) == text.removeprefix("the cat")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_the_terminal_keeps_the_text(tiny_model, tmp_path, number):
    history = History(tmp_path / "history.json")
    with create_pipe_input() as keys:
        editor = Editor(tiny_model, Settings(), history=history, input=keys, output=DummyOutput())
        editor.buffer.on_text_changed += lambda _: os.kill(os.getpid(), number)
        keys.send_text("careful prose")
        assert editor.write() == "careful prose"
    assert [(entry.text, entry.note) for entry in history.entries] == [("careful prose", "not run")]


def test_alternatives_and_resampling_at_the_caret(tiny_model):
    async def script(editor, press, until, run):
        press("ab")
        await run(RUN)
        token = next(span for span in editor.annotated.spans if len(span.top) == 5)
        press(PROBABILITIES)
        editor.buffer.cursor_position = token.start
        await until(lambda: editor.probabilities)
        assert repr(token.top[1][0]) in editor._alternatives() and "Alt+2" in editor._alternatives()
        start = editor.annotated.text[: token.start]
        await run(alt(2))
        assert editor.annotated.text.startswith(start + token.top[1][0])
        assert editor.annotated.token_at(token.start).logprob == pytest.approx(token.top[1][1])
        editor.buffer.cursor_position = token.start
        await run(RESAMPLE)
        assert editor.annotated.text.startswith(start)

    driven(tiny_model, script, max_tokens=12, seed=3, temperature=0.5)


def test_part_of_a_character_is_no_alternative(tiny_model):
    async def script(editor, press, until, run):
        press(PROBABILITIES)
        await until(lambda: editor.probabilities)
        editor._show(AnnotatedText("x").append(" y", -1.0, (("\ufffd", -0.5), (" y", -1.0))))
        editor.buffer.cursor_position = 1
        assert editor._alternatives() == "' y' 37%   part of a character 61%  Alt+2 ' y' 37%"
        press(alt(1) + "z")
        await until(lambda: editor.buffer.text == "xz y")
        assert not editor.running and not editor.message

    driven(tiny_model, script)


def test_samples_stand_side_by_side_and_one_is_kept(tiny_model, tmp_path):
    history = History(tmp_path / "history.json")

    async def script(editor, press, until, run):
        press("the cat")
        await run(RUN)
        texts = [sample.annotated.text for sample in editor.samples]
        assert texts == tiny_model.generate("the cat", SamplingParams(max_tokens=6, seed=5, n=3))
        assert editor.buffer.text == "the cat"
        press(alt(2))
        await until(lambda: editor.buffer.text == "the cat" + texts[1])
        assert not editor.samples
        press(UNDO)
        await until(lambda: len(editor.samples) == 3)
        press(UNDO)
        await until(lambda: not editor.samples)
        press(HISTORY)  # which keeps all of them
        await until(lambda: editor.menu is not None)
        press("\r")
        await until(lambda: [sample.annotated.text for sample in editor.samples] == texts)
        press(alt(3))
        await until(lambda: editor.buffer.text == "the cat" + texts[2])
        assert "".join(editor.buffer.text[start:end] for start, end in editor.annotated.bounds) == texts[2]

    driven(tiny_model, script, history, max_tokens=6, seed=5, n=3)
    assert [entry.note.partition(" ·")[0] for entry in history.entries] == ["not run", "18 tokens"]


def test_settings_are_one_line(tiny_model):
    async def script(editor, press, until, run):
        press("the cat" + SETTINGS + CLEAR + "temperature=9\r")
        await until(lambda: "temperature is 9.0; it must be between 0 and 2" in editor.message)
        press(CLEAR + "temperature=0 max_tokens=3 'stop=\\n'\r")
        await until(lambda: editor.settings == Settings(SamplingParams(temperature=0.0, max_tokens=3, stop=("\n",))))
        await run(RUN)
        assert "3 tokens" in editor.message
        press(SETTINGS + CLEAR + "max_tokens=wrong" + RUN)
        await until(lambda: "max_tokens is 'wrong'" in editor.message and not editor.running)
        await run(CLEAR + "max_tokens=1" + RUN)  # what is typed counts without Enter
        assert editor.message.startswith("1 token · ")

    driven(tiny_model, script)


def test_text_that_is_too_long_stays_with_a_message(tiny_model):
    async def script(editor, press, until, run):
        press("x" * 100 + RUN)
        await until(lambda: "the prompt has 100 tokens" in editor.message)
        assert editor.annotated.text == "x" * 100

    driven(tiny_model, script)


def test_examples_and_links_replace_text_and_settings(tiny_model):
    async def script(editor, press, until, run):
        press("my own words" + EXAMPLES_KEY)
        await until(lambda: editor.menu is not None)
        press(DOWN * 3 + "\r")
        await until(lambda: editor.buffer.text == EXAMPLES[3]["text"])
        assert editor.settings.params.temperature == 0.2 and editor.settings.end_of_function
        assert editor.settings.params.seed == 3  # an example changes only the settings that it names
        press(LINK)
        await until(lambda: "prompt=" in editor.line.text)
        press(CLEAR + link_to("the cat", Settings(SamplingParams(max_tokens=4))) + "\r")
        await until(lambda: editor.buffer.text == "the cat")
        assert editor.settings.params.max_tokens == 4
        press(UNDO + UNDO)
        await until(lambda: editor.buffer.text == "my own words")
        press(MODEL)
        await until(lambda: editor.menu is not None and "64 tokens" in editor.menu.text)

    driven(tiny_model, script, seed=3)


def test_all_of_a_long_text_can_be_read(tiny_model):
    lines = [f"line {number} " + "word " * (30 * (number % 2)) for number in range(60)]

    async def script(editor, press, until, run):
        editor._open(Menu("the model", text="\n".join(lines)))
        await until(lambda: "line 0 " in on_screen(editor) and "Page Down" in on_screen(editor))
        assert "line 59" not in on_screen(editor)
        press(DOWN)
        await until(lambda: "line 0 " not in on_screen(editor) and "line 1 " in on_screen(editor))
        press(PAGE_DOWN * 20)
        await until(lambda: editor.menu.lines[-1] in on_screen(editor))
        press("\x1b[A" * 200)
        await until(lambda: "line 0 " in on_screen(editor))

    driven(tiny_model, script)


def test_history_lasts_until_it_is_deleted(tiny_model, tmp_path):
    history = History(tmp_path / "state" / "history.json")

    async def first(editor, press, until, run):
        press("the cat")
        await run(RUN)
        press(" and what was not run")

    text = driven(tiny_model, first, history, max_tokens=4, seed=7).annotated.text

    async def second(editor, press, until, run):
        press(HISTORY)
        await until(lambda: editor.menu is not None)
        assert [choice.annotated.text for choice in editor.menu.choices] == [
            text,
            text.removesuffix(" and what was not run"),
        ]
        press("\r")
        await until(lambda: editor.buffer.text == text)
        model = "".join(text[span.start : span.end] for span in editor.annotated.spans)
        assert text == f"the cat{model} and what was not run" and editor.settings.params.seed == 7
        press(HISTORY)
        await until(lambda: editor.menu is not None)
        for other in ("", DOWN):  # another key takes the question back
            press(f"{other}x")
            await until(lambda: "x again deletes them all" in on_screen(editor))
        press(DOWN)
        await until(lambda: "x deletes all" in on_screen(editor))
        assert len(history.entries) == 2
        press("xx")
        await until(lambda: editor.menu is None)
        press(CLEAR)

    driven(tiny_model, second, history)
    assert len(history.entries) <= 1  # all were deleted; the text on the screen at the end is added


def test_text_ends_with_its_function(tiny_model):
    """The tokens are bytes; the sample ends with the first line outside the block."""
    sample = Sample(AnnotatedText("def f():\n"), "def f():\n")
    for letter in "    x\ny = 1":
        token = tiny_model.tokenizer.encode(letter)[0]
        sample.take(Chunk(0, letter, token), tiny_model.tokenizer)
    assert (sample.annotated.text, sample.reason) == ("def f():\n    x", "function")


def test_colours_of_probabilities_are_those_of_the_page():
    sheet = (resources.files("bluejay.serve") / "page" / "on_demand" / "style.css").read_text(encoding="utf-8")
    page = re.findall(r"\.(p\d) { background: light-dark\((#\w+)", sheet)
    assert len(page) == len(PROBABILITY_THRESHOLDS) + 1
    terminal = {name: style.split()[0] for name, style in STYLE.style_rules}
    assert {name: f"bg:{colour}" for name, colour in page} == {name: terminal[name] for name, _ in page}


def test_the_models_words_are_marked_without_colours_too(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    depth = ColorDepth.from_env()
    assert depth is not None and style_of(depth).get_attrs_for_style_str("class:model").underline
    assert style_of(ColorDepth.DEPTH_8_BIT) is STYLE


@pytest.mark.parametrize("name", ["dumb", "unknown"])
def test_terminal_that_cannot_move_the_cursor_is_refused(monkeypatch, name):
    monkeypatch.setenv("TERM", name)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(ValueError, match=f"moves the cursor, which a terminal with TERM={name} cannot; give a prompt"):
        open_editor(lambda: pytest.fail("the model was loaded"), SamplingParams())
