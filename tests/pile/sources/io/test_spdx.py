"""Licences by what files declare and by their texts."""

import pytest
from identify.vendor.licenses import LICENSES

from bluejay.pile.sources.io.spdx import LicenceFiles, declared, identified, is_licence, permitted


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("// SPDX-License-Identifier: MIT\n", "MIT"),
        (
            "/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR BSD-2-Clause */",
            "(GPL-2.0 WITH Linux-syscall-note) OR BSD-2-Clause",
        ),
        ("<!-- SPDX-License-Identifier: CC-BY-4.0 -->", "CC-BY-4.0"),
        ("# SPDX-License-Identifier: Apache-2.0\r\nx", "Apache-2.0"),
        ("(* SPDX-License-Identifier: LGPL-2.1-only *)", "LGPL-2.1-only"),
        ("{- SPDX-License-Identifier: BSD-3-Clause -}", "BSD-3-Clause"),
        ("{# SPDX-License-Identifier: MIT #}", "MIT"),
        ("<?php /* SPDX-License-Identifier: MIT */ ?>", "MIT"),
        ("no declaration", None),
    ],
)
def test_declarations(text: str, licence: str | None) -> None:
    assert declared(text) == licence


def test_texts_of_licences_with_a_holder_put_in() -> None:
    texts = dict(LICENSES)
    assert identified(texts["MIT"].replace("[year] [fullname]", "2026 The Authors").encode()) == "MIT"
    assert identified(texts["MPL-2.0"].encode()) == "MPL-2.0"
    assert identified(b"All rights reserved.") is None
    assert identified(b"\xff\xfe") is None


def test_names_of_licence_files() -> None:
    names = (
        "LICENSE a/licence.txt COPYING LICENSE-MIT LICENSE.md LICENSE_1_0.txt MIT-LICENSE.txt LICENSE.MIT COPYING.LIB"
    )
    assert all(map(is_licence, f"{names} COPYING3 LICENSE-APACHE-2.0 LICENSE.apache2 BSD_LICENSE".split()))
    assert not any(map(is_licence, ["LICENSES.py", "license_check.py", "license-check.js", "README", "license.json"]))


@pytest.mark.parametrize(
    ("expression", "allowed", "is_permitted"),
    [
        ("MIT OR GPL-2.0-only", ("MIT",), True),
        ("Apache-2.0 AND MIT", ("MIT",), False),
        ("Apache-2.0 AND MIT", ("mit", "apache-2.0"), True),
        ("(MIT OR GPL-2.0-only) AND Zlib", ("MIT", "Zlib"), True),
        ("MIT AND (GPL-2.0-only OR (Zlib AND ISC))", ("MIT", "Zlib"), False),
        ("(GPL-2.0 WITH Linux-syscall-note) OR BSD-2-Clause", ("GPL-2.0",), False),
        ("(GPL-2.0 WITH Linux-syscall-note) OR BSD-2-Clause", ("GPL-2.0 WITH Linux-syscall-note",), True),
        ("unknown", ("MIT",), False),
    ],
)
def test_licences_that_are_enough(expression: str, allowed: tuple[str, ...], is_permitted: bool) -> None:
    assert permitted(expression, allowed) is is_permitted


def test_the_nearest_folder_counts() -> None:
    texts = dict(LICENSES)
    files = {"LICENSE-MIT": "MIT", "LICENSE-APACHE": "Apache-2.0", "sub/COPYING": "GPL-3.0"}
    licences = LicenceFiles([*files, "sub/a/b.c"], lambda name: texts[files[name]].encode())
    assert licences.above("sub/a/b.c") == "GPL-3.0"
    assert licences.above("other/c.c") == "Apache-2.0 AND MIT"
    assert LicenceFiles([], lambda name: b"").above("a.c") == "unknown"
