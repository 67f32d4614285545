"""Questions and their best answers, from Posts.xml of Stack Exchange's data dumps."""

import re
import sqlite3
import tempfile
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from bluejay.pile.documents import Document
from bluejay.pile.sources.formats.html import all_text
from bluejay.pile.sources.io.elements import element, elements
from bluejay.pile.sources.io.licences import licence_named
from bluejay.pile.sources.io.open import BROKEN
from bluejay.pile.sources.io.records import RecordFiles

QUESTION, ANSWER = "1", "2"
"""Values of PostTypeId."""
SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"
SITE = re.compile(r"([a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:com|net|org))(?=[./-]|$)")
"""A host in the path of a dump; the last is that of the site, behind the one that the dump comes from."""
TABLES = """
CREATE TABLE question (id INTEGER PRIMARY KEY, accepted INTEGER, source TEXT);
CREATE TABLE answer (id INTEGER PRIMARY KEY, question INTEGER, score INTEGER, source TEXT);
"""
BEST_FIRST = """
SELECT answer.source FROM answer WHERE question = :id AND (score >= :score OR id = :accepted)
ORDER BY score DESC, id LIMIT :most
"""
ATTRIBUTE = re.compile(r"""\s([\w:.-]+)\s*=\s*("[^"]*"|'[^']*')""")
INTEGER = re.compile(r"""["']-?\d+["']""")
ROWS_AT_ONCE = 10_000
"""Rows after which the time limit starts again."""
SECONDS_BETWEEN_CHECKS = 1.0
"""How often it is checked whether an archive is still being unpacked."""


@dataclass(frozen=True, kw_only=True)
class StackExchange(RecordFiles):
    """Each question with its best answers is one document. Files are a Posts.xml, or the .7z archive of a site.

    Answers are chosen as for The Pile: accepted ones, or those with a score of 3 or more; at most three, the best
    first. Unlike there, a question with a deleted answer is kept. A question without such an answer is left out.
    """

    kind: Literal["stackexchange"] = "stackexchange"
    score: int = 3
    """The lowest score of an answer that was not accepted."""
    answers: int = 3
    """The largest number of answers to keep."""

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """Each question and its answers. A temporary database joins them, since an answer may come much later."""
        with closing(sqlite3.connect("")) as posts:  # an unnamed temporary file, removed with this process
            posts.executescript(TABLES)
            file = yield from posts_file(stream)
            with file:
                broken = yield from self.sort(file, posts)
            posts.execute("CREATE INDEX by_question ON answer (question)")
            for identifier, accepted, source in posts.execute("SELECT * FROM question ORDER BY id"):
                choice = {"id": identifier, "accepted": accepted, "score": self.score, "most": self.answers}
                best = [row[0] for row in posts.execute(BEST_FIRST, choice)]
                yield (source, best) if best else None
            if broken:
                raise broken

    def sort(self, file: BufferedIOBase, posts: sqlite3.Connection) -> Generator[Any, None, Exception | None]:
        """Put questions and answers into their tables, and yield an exception for each row that is too large; returns
        the error that ended the file early, if any."""
        try:
            for count, (_, source) in enumerate(elements(file, "row")):
                if isinstance(source, ValueError):
                    yield source
                    continue
                post = {name: value[1:-1] for name, value in ATTRIBUTE.findall(source) if INTEGER.fullmatch(value)}
                if post.get("PostTypeId") == QUESTION and "Id" in post:
                    row = (post["Id"], post.get("AcceptedAnswerId"), source)
                    posts.execute("INSERT OR IGNORE INTO question VALUES (?, ?, ?)", row)
                elif post.get("PostTypeId") == ANSWER and {"Id", "ParentId"} <= post.keys():
                    row = (post["Id"], post["ParentId"], post.get("Score", 0), source)
                    posts.execute("INSERT OR IGNORE INTO answer VALUES (?, ?, ?, ?)", row)
                if count % ROWS_AT_ONCE == 0:
                    yield None
        except BROKEN as error:  # the posts before the damage are complete
            return error
        return None

    def document(self, name: str, record: Any) -> Document:
        """The Pile's format: Q:, title and body, then A: before each answer."""
        question, *answers = (element(source).attrib for source in (record[0], *record[1]))
        asked = f"Q:\n\n{question.get('Title', '').strip()}\n\n{all_text(question.get('Body', ''))}"
        text = "\n\n".join((asked, *(f"A:\n\n{all_text(answer.get('Body', ''))}" for answer in answers)))
        site = next(reversed([*SITE.finditer(Path(name).as_posix().lower())]), None)
        url = f"https://{site[1]}/questions/{question['Id']}" if site else f"{name}#{question['Id']}"
        licences = dict.fromkeys(
            licence_named(post.get("ContentLicense", self.licence)) for post in (question, *answers)
        )
        meta = {
            "title": question.get("Title", ""),
            "date": question.get("CreationDate", ""),
            "score": int(question.get("Score", 0)),
            "tags": re.findall(r"[^<>|]+", question.get("Tags", "")),
            "authors": list(dict.fromkeys(filter(None, (author(post, site) for post in (question, *answers))))),
        }
        return Document(text, site[1] if site else name, " AND ".join(licences), url, meta)


def author(post: Any, site: re.Match[str] | None) -> str:
    """The attribution that the licence requires: the user's page, or the name of a user who has left."""
    user = post.get("OwnerUserId")
    return f"https://{site[1]}/users/{user}" if user and site else post.get("OwnerDisplayName", "")


def posts_file(stream: BufferedIOBase) -> Generator[None, None, BufferedIOBase]:
    """Returns the Posts.xml of an archive, unpacked into an unnamed temporary file; any other stream unchanged."""
    packed = stream.read(len(SEVEN_ZIP)) == SEVEN_ZIP
    stream.seek(0)
    if not packed:
        return stream
    import py7zr

    with (
        tempfile.TemporaryDirectory() as folder,
        py7zr.SevenZipFile(cast(BinaryIO, stream)) as archive,
        ThreadPoolExecutor(1) as thread,
    ):
        member = next((name for name in archive.getnames() if Path(name).name == "Posts.xml"), None)
        if not member:
            raise ValueError("the archive holds no Posts.xml")
        unpacked, size = Path(folder) / member, 0
        work = thread.submit(archive.extract, folder, [member])
        while wait([work], SECONDS_BETWEEN_CHECKS).not_done:
            if unpacked.exists() and unpacked.stat().st_size > size:
                size = unpacked.stat().st_size
                yield None
        work.result()
        return unpacked.open("rb")
