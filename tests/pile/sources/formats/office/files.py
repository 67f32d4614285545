"""Small office documents, as their programs write them, around what a test is about."""

import io
import zipfile

OFFICE = "http://schemas.openxmlformats.org"
RELATION = f"{OFFICE}/officeDocument/2006/relationships"
SPACES = (
    f'xmlns:w="{OFFICE}/wordprocessingml/2006/main" xmlns:r="{RELATION}" xmlns:m="{OFFICE}/officeDocument/2006/math" '
    f'xmlns:p="{OFFICE}/presentationml/2006/main" xmlns:a="{OFFICE}/drawingml/2006/main" '
    f'xmlns:mc="{OFFICE}/markup-compatibility/2006" xmlns:wps="http://schemas.microsoft.com/wps" '
    'xmlns:v="urn:schemas-microsoft-com:vml" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:dcterms="http://purl.org/dc/terms/"'
)
NAMES = "office text table draw presentation style meta"
OPEN = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in NAMES.split())
OPEN += (
    ' xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0"'
)
OPEN += ' xmlns:dc="http://purl.org/dc/elements/1.1/"'
XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'


def zipped(files: dict[str, str]) -> bytes:
    """A zip archive of files of text."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def relations(targets: dict[str, tuple[str, str]]) -> str:
    """The relations of a part: name -> kind and path."""
    inner = "".join(
        f'<Relationship Id="{name}" Type="{RELATION}/{kind}" Target="{target}"/>'
        for name, (kind, target) in targets.items()
    )
    return f'{XML}<Relationships xmlns="{OFFICE}/package/2006/relationships">{inner}</Relationships>'


def docx(body: str, properties: str = "", **parts: str) -> bytes:
    """A document of Word with this body, and other parts by their kind: styles, numbering, footnotes."""
    files = {
        "_rels/.rels": relations(
            {"rId1": ("officeDocument", "word/document.xml"), "rId2": ("core-properties", "docProps/core.xml")}
        ),
        "docProps/core.xml": f"{XML}<cp {SPACES}>{properties}</cp>",
        "word/document.xml": f"{XML}<w:document {SPACES}><w:body>{body}</w:body></w:document>",
        "word/_rels/document.xml.rels": relations({kind: (kind, f"{kind}.xml") for kind in parts}),
    }
    inner = {f"word/{kind}.xml": f"{XML}<w:{kind} {SPACES}>{content}</w:{kind}>" for kind, content in parts.items()}
    return zipped(files | inner)


def p(text: str, properties: str = "") -> str:
    """A paragraph of Word with one run."""
    return f'<w:p><w:pPr>{properties}</w:pPr><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def shape(kind: str, *paragraphs: str) -> str:
    """A shape of PowerPoint: the placeholder of a kind, with these paragraphs or texts."""
    inner = "".join(text if text.startswith("<") else f"<a:p><a:r><a:t>{text}</a:t></a:r></a:p>" for text in paragraphs)
    place = f'<p:nvPr><p:ph type="{kind}"/></p:nvPr>' if kind else "<p:nvPr><p:ph/></p:nvPr>"
    return f"<p:sp><p:nvSpPr>{place}</p:nvSpPr><p:txBody>{inner}</p:txBody></p:sp>"


def pptx(slides: dict[str, str], notes: dict[str, str]) -> bytes:
    """A presentation: the shapes of its slides, and of their pages of notes, by their names and in order."""
    order = "".join(f'<p:sldId id="{256 + n}" r:id="{name}"/>' for n, name in enumerate(slides))
    listed = f"<p:sldIdLst>{order}</p:sldIdLst>"
    later = '<p:extLst><p14:sldId xmlns:p14="urn:later" id="256"/></p:extLst>'
    files = {
        "_rels/.rels": relations({"rId1": ("officeDocument", "/ppt/presentation.xml")}),
        "ppt/presentation.xml": f"{XML}<p:presentation {SPACES}>{listed}{later}</p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations({name: ("slide", f"slides/{name}.xml") for name in slides}),
    }
    tree = "<p:{0} {1}><p:cSld><p:spTree>{2}</p:spTree></p:cSld></p:{0}>"
    for name, shapes in sorted(slides.items()):
        files[f"ppt/slides/{name}.xml"] = shapes if shapes.startswith("?") else tree.format("sld", SPACES, shapes)
        if name in notes:
            files[f"ppt/slides/_rels/{name}.xml.rels"] = relations({"n": ("notesSlide", f"../notes/{name}.xml")})
            files[f"ppt/notes/{name}.xml"] = tree.format("notes", SPACES, notes[name])
    return zipped(files)


def opendocument(body: str, styles: str = "", about: str = "", kind: str = "text", **files: str) -> bytes:
    """A document in OpenDocument with this body, the automatic styles, and what `meta.xml` says."""
    content = f"<office:automatic-styles>{styles}</office:automatic-styles>"
    content += f"<office:body><office:{kind}>{body}</office:{kind}></office:body>"
    return zipped(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{kind}",
            "content.xml": f"{XML}<office:document-content {OPEN}>{content}</office:document-content>",
            "meta.xml": f"{XML}<office:document-meta {OPEN}><office:meta>{about}</office:meta></office:document-meta>",
        }
        | {name.replace("_", "/") + ".xml": text for name, text in files.items()}
    )
