"""A notebook is the text and the code that its author wrote, whatever version its format has."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bluejay.pile.sources.formats.jupyter import Notebook

KERNEL = {"kernelspec": {"language": "python", "name": "python3"}, "language_info": {"name": "python"}}


def cell(kind: str, source: Any, **more: Any) -> dict[str, Any]:
    return {"cell_type": kind, "metadata": {}, "source": source, **more}


def notebook(*cells: Any, metadata: Any = KERNEL) -> bytes:
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}).encode()


def test_texts_and_code_without_results(parsed: Callable) -> None:
    output = {"output_type": "stream", "text": ["a log\n"]}
    data = notebook(
        cell("markdown", ["# Title\n", "\n", "Text of café."]),
        cell("code", "if x:\n    print('```')\n", outputs=[output]),
        cell("code", ["1"], outputs=[]),
        cell("raw", "as it is"),
        cell("code", ""),
    )
    ((document,), aside) = parsed(Notebook(path="x"), data)
    assert not aside
    assert document.text == (
        "# Title\n\nText of café.\n\n````python\nif x:\n    print('```')\n````\n\n```python\n1\n```\n\nas it is"
    )


def test_notebooks_of_before_2014(parsed: Callable) -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["A heading"]},
        {"cell_type": "markdown", "source": "Text."},
        {"cell_type": "code", "language": "julia", "input": ["x = 1"], "outputs": []},
    ]
    data = {"nbformat": 3, "metadata": {"name": "Old"}, "worksheets": [{"cells": cells[:2]}, {"cells": cells[2:]}]}
    ((document,), _) = parsed(Notebook(path="x"), json.dumps(data).encode("utf-16"))
    assert document.text == "## A heading\n\nText.\n\n```julia\nx = 1\n```"
    assert document.meta == {"title": "Old"}


def test_the_bytes_of_pictures_are_no_text(parsed: Callable) -> None:
    data = "data:image/png;base64,iVBORw0KGgo="
    source = f'A ![plot]({data}) b <img width="9" src="{data}"/> c ![d][image1] ![e](e.png)\n\n[image1]: <{data}>\n'
    ((document,), _) = parsed(Notebook(path="x"), notebook(cell("markdown", source)))
    assert document.text == "A plot b  c ![d][image1] ![e](e.png)"
    ((document,), _) = parsed(Notebook(path="x"), notebook(cell("markdown", "See ![a cat](attachment:1c-2d.png)")))
    assert document.text == "See a cat"


@pytest.mark.parametrize(
    "badge",
    [
        '<a href="{}" target="_parent"><img src="{}" alt="Open In Colab"/></a>',
        "[![Open In Colab]({})]({})",
    ],
)
def test_the_button_of_colab_is_no_text(parsed: Callable, badge: str) -> None:
    source = badge.format(*["https://colab.research.google.com/github/ann/cats/blob/main/a.ipynb"] * 2)
    ((document,), _) = parsed(Notebook(path="x"), notebook(cell("markdown", source), cell("markdown", "# Cats")))
    assert document.text == "# Cats"


def test_metadata_and_licence(parsed: Callable) -> None:
    about = {"title": "A title", "authors": [{"name": "Ann"}, {"url": "x"}, "Bo"]}
    first = cell("code", "# SPDX-License-Identifier: Apache-2.0\nx")
    ((document,), _) = parsed(Notebook(path="x"), notebook(first, metadata=about))
    assert (document.meta, document.licence) == ({"title": "A title", "authors": ["Ann"]}, "Apache-2.0")
    assert document.text.startswith("```\n# SPDX")


def test_a_broken_cell_costs_itself(parsed: Callable) -> None:
    cells = [
        "no cell",
        cell("markdown", 7),
        cell("markdown", ["a", 7]),
        {"cell_type": "code"},
        cell("markdown", "Whole."),
    ]
    ((document,), aside) = parsed(Notebook(path="x"), notebook(*cells))
    assert document.text == "Whole."
    assert [entry.reason for entry in aside] == [f"a cell is broken: {number}" for number in range(1, 5)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a notebook: Expecting value"),
        (b'{"cells": [', "not a notebook: Expecting value"),
        (b"[1]", "not a notebook: not a JSON object"),
        (b'{"nbformat": 4, "cells": null}', "not a notebook: it has no cells"),
        (b'{"worksheets": [7, {"cells": 7}]}', "not a notebook: it has no cells"),
        (b"[" * 100_000, "not a notebook: it is nested too deeply"),
        (notebook(metadata=7), "there is no text in it"),
    ],
)
def test_what_is_no_notebook_is_skipped(parsed: Callable, data: bytes, reason: str) -> None:
    documents, (aside,) = parsed(Notebook(path="x"), data)
    assert not documents and aside.reason.startswith(reason)
