"""The background of patents, in the layouts of 2005 and of 2002."""

from collections.abc import Callable

from bluejay.pile.sources.formats.patents import Patents

GRANT = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE us-patent-grant SYSTEM "us-patent-grant-v45-2014-04-03.dtd" [ ]>
<us-patent-grant lang="EN"><us-bibliographic-data-grant><publication-reference><document-id><country>US</country>
<doc-number>0{number}</doc-number><kind>B2</kind><date>20200107</date></document-id></publication-reference>
<invention-title id="d1">Toaster</invention-title></us-bibliographic-data-grant>
<description id="description"><?BRFSUM description="Brief Summary" end="lead"?>
<heading id="h-1" level="1">CROSS-REFERENCE TO RELATED ART</heading><p id="p-1">No claim.</p>
<heading id="h-2" level="1">{heading}</heading><p id="p-2" num="0001">Toast<br/>is <b>old</b>.<maths>none</maths></p>
<heading id="h-3" level="2">Bread</heading><p id="p-3">Bread is older.</p>
<heading id="h-4" level="1">SUMMARY</heading><p id="p-4">A toaster.</p></description></us-patent-grant>
"""
PATDOC = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE PATDOC SYSTEM "ST32-US-Grant-024.dtd" [<!ENTITY US1-A SYSTEM "US1.TIF" NDATA TIF>]>
<PATDOC><SDOBI><B100><B110><DNUM><PDAT>06334220</PDAT></DNUM></B110><B130><PDAT>B1</PDAT></B130><B140><DATE>
<PDAT>20020101</PDAT>
</DATE></B140><B190><PDAT>US</PDAT></B190></B100><B540><STEXT><PDAT>Garment</PDAT></STEXT></B540></SDOBI><SDODE><BRFSUM>
<BTEXT><H LVL="1"><STEXT><PDAT>BACKGROUND OF THE INVENTION</PDAT></STEXT></H><PARA ID="P1"><PTEXT>
<PDAT>Cloth is known.</PDAT></PTEXT></PARA>
<H LVL="1"><STEXT><PDAT>SUMMARY OF THE INVENTION</PDAT></STEXT></H><PARA ID="P2"><PTEXT><PDAT>A garment.</PDAT>
</PTEXT></PARA></BTEXT></BRFSUM></SDODE></PATDOC>
"""


def test_a_week_of_patents(parsed: Callable) -> None:
    week = "".join(
        [
            GRANT.format(number=10524611, heading="BACKGROUND OF THE INVENTION"),
            GRANT.format(number=1, heading="FIELD"),
            PATDOC,
        ]
    )
    documents, (aside,) = parsed(Patents(path="x"), week.encode())
    assert [document.text for document in documents] == ["Toast is old.\n\nBread is older.", "Cloth is known."]
    assert [document.url for document in documents] == [
        "https://patents.google.com/patent/US10524611B2",
        "https://patents.google.com/patent/US6334220B1",
    ]
    assert [document.meta["title"] for document in documents] == ["Toaster", "Garment"]
    assert documents[0].meta["date"] == "20200107"
    assert aside.reason == "the patent has no section about its background"
