"""Functions of the page's modules: parsing streams, aligning tokens with text, spans under edits, code."""

import random

import pytest

from tests.terminal.test_function_end import CASES

PARSE = """
async ({text, cuts}) => {
    const { events } = await import(new URL("api.js", document.querySelector("script").src));
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
        let comments = 0;
        for await (const data of events(body, () => comments++)) found.push(data);
        results.push([...found, comments]);
    }
    return results;
}
"""


@pytest.fixture(scope="module")
def page(browser, server):
    """One page for all calls: the functions keep no state."""
    with browser.new_context() as context:
        opened = context.new_page()
        opened.goto(server.url)
        yield opened


@pytest.fixture
def call(page):
    """Calls a function of a module of the page: call("on_demand/function_end", "functionEnd", "def f():", " ...")."""

    def called(module: str, function: str, *arguments):
        script = """async ([module, name, args]) => {
            const path = new URL(`${module}.js`, document.querySelector("script").src);
            return (await import(path))[name](...args);
        }"""
        return page.evaluate(script, [module, function, arguments])

    return called


def test_events_may_be_cut_anywhere(page):
    expected = ['{"text": "añ日🐦"}', '{"text": "data: "}', "[DONE]"]
    text = ": comment\n\n" + "".join(f"data: {data}\n\n" for data in expected)
    sizes = list(range(1, 40))
    assert page.evaluate(PARSE, {"text": text, "cuts": sizes}) == [[*expected, 1]] * len(sizes)


def test_delayed_text_is_aligned_with_its_tokens(page):
    """Tokens stay separate pieces even if their text arrives late; parts of one character become one piece."""
    parts = [(" ret", []), ("", ["bytes:\\xe6", -1]), ("", ["bytes:\\x97", -1]), ("日", ["bytes:\\xa5", -1])]
    parts = [
        ("", [" ret", -1]),
        ("", ["urn", -2]),
        (" return x", [" x", -3]),
        *parts[1:],
        ("a\r\n", ["a\r\n", -0.5]),
        (" sto", [" stop", -4]),
        ("\r", ["\r", -1]),
        ("\n", ["\n", -2]),
        ("\n\r", ["\n\r", -3]),
        ("b", ["b", -4]),
    ]
    script = """async (parts) => {
        const { TokenAligner } = await import(new URL("run.js", document.querySelector("script").src));
        const pieces = new TokenAligner();
        return parts.flatMap(([text, [token, logprob]]) => pieces.push(text, [{ text: token, logprob, top: [] }]));
    }"""
    found = [(one["text"], one["logprob"], "top" in one) for one in page.evaluate(script, parts)]
    assert found == [
        (" ret", -1, True),
        ("urn", -2, True),
        (" x", -3, True),
        ("日", -3, False),
        ("a\n", -0.5, True),
        (" sto", -4, True),
        ("\n", -1, True),
        ("", -2, True),
        ("\n\n", -3, True),
        ("b", -4, True),
    ]


@pytest.mark.parametrize(("n_tokens", "why"), [(2, "context full or time over"), (3, "length reached")])
def test_report_counts_tokens_and_tells_the_length_from_an_earlier_end(page, n_tokens, why):
    script = """async (n) => {
        const { Run } = await import(new URL("run.js", document.querySelector("script").src));
        const run = new Run("", { max_tokens: 3, seed: 17 }, "", [{}]);
        const [text, reason] = ["a", null];
        for (let i = 0; i < n; i++) run.take({ index: 0, text, tokens: [{ text, logprob: -1, top: [] }], reason });
        run.take({ index: 0, text: "", tokens: [], reason: "length" });
        return run.report({ list: [] });
    }"""
    report = page.evaluate(script, n_tokens).split(" · ")
    assert (report[0], report[-1]) == (f"{n_tokens} tokens", why)


def test_spans_keep_their_author_under_any_edit(call):
    """Every letter keeps its author, and an edited token loses its probability."""
    draw = random.Random(0)
    for _ in range(40):
        # All letters differ, so that the author of each is known after the edit.
        before = "".join(map(chr, range(0x4E00, 0x4E00 + 30)))
        cuts = sorted(draw.sample(range(31), 6))
        spans = [{"start": cuts[i], "end": cuts[i + 1], "logprob": -1} for i in (0, 2, 4)]
        start, end = sorted(draw.sample(range(31), 2))
        typed = "".join(chr(draw.randrange(0x3041, 0x3090)) for _ in range(draw.randrange(4)))
        after = before[:start] + typed + before[end:]
        model = {letter for span in spans for letter in before[span["start"] : span["end"]]}
        marked = [after[span["start"] : span["end"]] for span in call("spans", "spansAfterEdit", spans, before, after)]
        assert "".join(marked) == "".join(letter for letter in after if letter in model)
        # Only whole tokens have a probability.
        whole = [span for span in call("spans", "spansAfterEdit", spans, before, after) if "logprob" in span]
        tokens = {before[span["start"] : span["end"]] for span in spans}
        assert all(after[span["start"] : span["end"]] in tokens for span in whole)


@pytest.mark.parametrize(("prompt", "added", "kept"), CASES)
def test_function_ends_where_its_block_does(call, prompt, added, kept):
    end = call("on_demand/function_end", "functionEnd", prompt, added)
    if kept is ...:
        assert end == -1
    else:
        assert added[:end] == (added[: added.index("\n}\n") + 2] if kept is None else kept)
        # Without its last character the function has not ended.
        assert call("on_demand/function_end", "functionEnd", prompt, added[: end - 1]) == -1


def test_code_is_told_from_prose(call):
    code = [
        "def f(x):\n    return x\n",
        "// Returns the sum.\nfunction add(a, b) {\n",
        "#include <stdio.h>\nint main(void) {\n",
        "import os\nimport sys\n",
        "const x = [1, 2];\n",
    ]
    prose = [
        "Once upon a time (long ago) there was a bird.",
        "For a while, nobody knew.\n\nIf it rains, we stay: that is the rule.",
        "import duties rose; return to sender",
        "Dear Ann,\n\nclass begins at nine. Let me know:\n- pens\n- paper\n",
        "",
    ]
    assert [call("code", "looksLikeCode", text) for text in code + prose] == [True] * 5 + [False] * 5


def test_blank_lines_do_not_slow_the_colours_down(call, page):
    page.evaluate("() => { window.began = performance.now(); }")
    assert call("code", "syntaxSpans", "\n" * 100_000) == []
    assert page.evaluate("performance.now() - window.began") < 1000


def test_syntax_of_a_program(call):
    def parts(text: str) -> list[tuple[str, str]]:
        return [(text[start:end], kind) for start, end, kind in call("code", "syntaxSpans", text)]

    assert parts("def f(x):\n    return x // 2  # half\n") == [
        *[("def", "keyword"), ("f", "name"), ("return", "keyword"), ("2", "number"), ("# half", "comment")]
    ]
    assert parts('let s = "a // b"; // c\n') == [
        *[("let", "keyword"), ('"a // b"', "string"), ("// c", "comment")],
    ]
    assert parts('"""open\n# text') == [('"""open\n# text', "string")]
