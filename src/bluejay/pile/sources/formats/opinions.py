"""Opinions of courts in CourtListener's JSON (https://www.courtlistener.com/help/api/rest/case-law/)."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, stated
from bluejay.pile.sources.formats.html import all_text
from bluejay.pile.sources.formats.json_objects import json_objects
from bluejay.pile.sources.io.records import RecordFiles

TEXTS = ("html_with_citations", "html_columbia", "html_lawbox", "xml_harvard", "html_anon_2020", "html", "plain_text")
"""The fields that may hold the text, in the order of preference of CourtListener's documentation."""
SITE = "https://www.courtlistener.com"


@dataclass(frozen=True, kw_only=True)
class Opinions(RecordFiles):
    """Each opinion is one document. Opinions of courts of the United States are in the public domain."""

    kind: Literal["opinions"] = "opinions"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """Each opinion; one within a cluster has the fields of the cluster, too."""
        for found in json_objects(stream):
            nested = found.get("sub_opinions") or found.get("opinions") if isinstance(found, dict) else None
            inner = [opinion for opinion in nested or [] if isinstance(opinion, dict)]
            yield from (
                ({**found, "absolute_url": "", **opinion, "cluster": found} for opinion in inner) if inner else [found]
            )

    def document(self, name: str, record: Any) -> Document:
        """The text of the opinion, from the best of the forms that it has."""
        kind = next((kind for kind in TEXTS if str(record.get(kind) or "").strip()), None)
        if not kind:
            raise ValueError("the opinion has no text")
        text = str(record[kind])
        cluster = record["cluster"] if isinstance(record.get("cluster"), dict) else {}
        path = record.get("absolute_url") or cluster.get("absolute_url")
        number = record.get("id")
        url = f"{SITE}{path}" if path else f"{SITE}/api/rest/v4/opinions/{number}/" if number else name
        meta = {
            "title": record.get("case_name") or cluster.get("case_name"),
            "date": record.get("date_filed") or cluster.get("date_filed"),
            "court": record.get("court") or cluster.get("court"),
            "author": record.get("author_str"),
            "type": record.get("type"),
        }
        plain = text.strip() if kind == "plain_text" else all_text(text)
        return Document(plain, name, self.licence, url, {key: str(value) for key, value in stated(meta).items()})
