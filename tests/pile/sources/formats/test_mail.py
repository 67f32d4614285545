"""Messages written by the standard library's mailbox and e-mail packages come out as their text."""

import base64
import binascii
import mailbox
import quopri
import re
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bluejay.pile.sources.formats import mail as mailboxes
from bluejay.pile.sources.formats.mail import Mail


def message(text: str, subject: str = "Hello", **more: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["Subject"], mail["Message-ID"] = "a@example.com", subject, "<1@example.com>"
    mail["Date"] = "Fri, 3 Jan 2020 10:00:00 +0100"
    mail.set_content(text, **more)
    return mail


def write_mbox(path: Path, texts: list[str]) -> bytes:
    box = mailbox.mbox(path)
    for text in texts:
        box.add(message(text))
    box.close()
    return path.read_bytes()


def test_an_mbox(parsed: Callable, tmp_path: Path) -> None:
    texts = ["One.\n", "From here on\n\nFrom nobody Mon Jan  1 10:00:00 2020\nit goes.\n", "Ünï.\n", "last"]
    documents, aside = parsed(Mail(path="x"), write_mbox(tmp_path / "box", texts))
    assert [document.text.strip() for document in documents] == [text.strip() for text in texts]
    assert not aside
    assert documents[0].url == "mid:1@example.com"
    assert documents[0].meta == {"title": "Hello", "date": "2020-01-03T10:00:00+01:00"}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1), min_size=1, max_size=4
    )
)
def test_any_text_comes_out_of_an_mbox(
    parsed: Callable, tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("mbox") / "box"
    documents, aside = parsed(Mail(path="x"), write_mbox(path, [text + "\n" for text in texts]))
    assert [document.text.strip() for document in documents] == [text.strip() for text in texts if text.strip()]
    assert len(documents) + len(aside) == len(texts)


def test_a_maildir(tmp_path: Path) -> None:
    box = mailbox.Maildir(tmp_path / "mail")
    for number in range(3):
        box.add(message(f"Text {number}."))
    source = Mail(path=f"{tmp_path}/mail/*/*")
    found = sorted(document.text.strip() for unit in source.units() for document in source.read(unit))
    assert found == ["Text 0.", "Text 1.", "Text 2."]


def test_the_plain_part_and_no_attachment(parsed: Callable) -> None:
    mail = message("Plain café.\n", subject="Grüße aus dem Café")
    mail.add_alternative("<p>Rich.</p>", subtype="html")
    mail.add_attachment("Attached.", filename="a.txt")
    (document,), _ = parsed(Mail(path="x"), mail.as_bytes())
    assert document.text.strip() == "Plain café."
    assert document.meta["title"] == "Grüße aus dem Café"
    rich = message("")
    rich.set_content("<p>Only &eacute; rich.</p><p>Two.</p>", subtype="html")
    (document,), _ = parsed(Mail(path="x"), rich.as_bytes())
    assert document.text == "Only é rich.\n\nTwo."
    mail = message("   \n")
    mail.add_alternative("<p>Rich.</p>", subtype="html")
    assert parsed(Mail(path="x"), mail.as_bytes())[0][0].text == "Rich."


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain; charset=klingon", "caf\u00e9".encode(), "café"),
        ("text/plain; charset=us-ascii", "caf\u00e9".encode("cp1252"), "café"),
        ("text/plain; charset=utf-8", "caf\u00e9".encode("latin-1"), "café"),
        ("text/plain charset=us-ascii", b"text", "text"),
        ("multipart/alternative", b"text", "text"),
        ("multipart/mixed; boundary=x", b"--y\n\ntext", "--y\n\ntext"),
        ("", b"text", "text"),
    ],
)
def test_broken_headers_lose_no_text(parsed: Callable, content_type: str, body: bytes, text: str) -> None:
    head = f"From: a\nDate: never\nSubject: =?klingon?q?x?=\nContent-Type: {content_type}\n\n"
    (document,), _ = parsed(Mail(path="x"), head.encode() + body)
    assert document.text.strip() == text


def test_what_is_no_message_is_skipped(parsed: Callable) -> None:
    assert "not a message" in parsed(Mail(path="x"), b"\x89PNG\r\n\x1a\n" * 20)[1][0].reason
    with pytest.raises(ValueError, match="it holds nothing of this kind"):
        parsed(Mail(path="x"), b"")


def test_a_sentence_is_no_separator(parsed: Callable) -> None:
    first = "From a@example.com Thu Jan  1 10:00:00 2004\nSubject: {}\n\n"
    bodies = [
        "Hello,\n\nFrom Monday on we open at 09:15 every day.\n\nThe rest.",
        "Look:\n\nFrom b@example.com Thu Jan  1 10:00:00 2004\nwas all it said.",
        "From Fri Jan 2 10:00 on it is closed.\n\nSee you",
    ]
    box = "".join(first.format(number) + body + "\n\n" for number, body in enumerate(bodies))
    documents, aside = parsed(Mail(path="x"), box.encode())
    assert [document.text.strip() for document in documents] == bodies
    assert not aside


@pytest.mark.parametrize(
    "separator",
    [
        "From a@example.com Thu Jan  1 10:00:00 2004",
        "From a at example.com  Thu Jan  1 10:00 2004",
        "From 123@xxx Thu Jan 01 10:00:00 +0000 2004",
        "From - Thu Jan  1 10:00:00 2004",
        "From a@example.com  Thu, 1 Jan 2004 10:00:00 +0100",
        "From a@example.com 2004-01-01 10:00",
    ],
)
def test_separators_as_programs_write_them(parsed: Callable, separator: str) -> None:
    box = "".join(f"{separator}\nSubject: {number}\n\nText {number}.\n\n" for number in range(3))
    documents, aside = parsed(Mail(path="x"), box.encode())
    assert [document.text.strip() for document in documents] == ["Text 0.", "Text 1.", "Text 2."]
    assert not aside


@pytest.mark.parametrize(
    "body", ["Text {}.", "--x\n\nText {}.\n--x--", "--x\nContent-Type: text/plain\n\nText {}.\n\n--x--"]
)
def test_a_message_right_behind_another_is_not_lost(parsed: Callable, body: str) -> None:
    head = "From a at example.com  Thu Jan  1 10:00:00 2004\nContent-Type: multipart/mixed; boundary=x\n\n"
    documents, aside = parsed(Mail(path="x"), "".join(f"{head}{body.format(n)}\n" for n in range(3)).encode())
    assert [document.text.strip() for document in documents] == ["Text 0.", "Text 1.", "Text 2."]
    assert not aside


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        ("iso-8859-1", b"It\x92s 5 \x80", "It’s 5 €"),
        ("us-ascii", "“Köln”".encode("cp1252"), "“Köln”"),
        ("gb2312", "镕".encode("gb18030"), "镕"),
        ("iso-8859-1", "Grüße – „hallo“".encode(), "Grüße – „hallo“"),
        ("utf-8", "Grüße – „hallo“ \xff".encode()[:-2] + b"\xc3", "Grüße – „hallo“ \ufffd"),
        ("unknown-8bit", "Köln".encode("cp1252"), "Köln"),
    ],
)
@pytest.mark.parametrize("coding", ["8bit", "base64", "quoted-printable"])
def test_charsets(parsed: Callable, charset: str, raw: bytes, text: str, coding: str) -> None:
    coded = {"8bit": bytes, "base64": base64.encodebytes, "quoted-printable": quopri.encodestring}[coding](raw)
    head = f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {coding}\n\n"
    ((document,), _) = parsed(Mail(path="x"), b"Subject: K\xf6ln\n" + head.encode() + coded)
    assert document.text.strip() == text
    assert document.meta["title"] == "Köln"


@pytest.mark.parametrize("charset", ["", "; charset=unknown-8bit"])
def test_a_message_in_an_unknown_encoding_is_skipped_alone(parsed: Callable, charset: str) -> None:
    head = f"From a@b Mon Jan  1 12:00:00 2024\nContent-Type: text/plain{charset}\n\n".encode()
    russian = "Привет, это письмо от меня и ещё одно письмо\n\n".encode("koi8-r")
    ((document,), (aside,)) = parsed(Mail(path="x"), head + russian + head + "“Grüße”\n".encode("cp1252"))
    assert document.text.strip() == "“Grüße”"
    assert aside.reason.startswith("its encoding is unknown")


@pytest.mark.parametrize("charset", ["", "; charset=unknown-8bit"])
@pytest.mark.parametrize(
    ("meta", "codec", "text"),
    [
        ("<meta charset=koi8-r>", "koi8-r", "Привет, мир"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=shift_jis">', "cp932", "日本語の文書"),
        ("<meta charset=koi8-r>", "utf-8", "Привет, мир"),
    ],
)
def test_a_page_in_a_message_declares_its_charset(
    parsed: Callable, meta: str, codec: str, text: str, charset: str
) -> None:
    page = base64.encodebytes(f"<html><head>{meta}</head><p>{text}</p></html>".encode(codec))
    head = f"Subject: A\nContent-Type: text/html{charset}\nContent-Transfer-Encoding: base64\n\n".encode()
    ((document,), _) = parsed(Mail(path="x"), head + page)
    assert document.text == text


@pytest.mark.parametrize(
    ("subject", "title"),
    [
        ("=?gb2312?B?yfHD2A==?= and =?ISO-8859-1?Q?It=92s?=", "神秘 and It’s"),
        ("=?utf-8?Q?Gr=C3=BC?= =?utf-8?Q?=C3=9Fe?=", "Grüße"),
        ("Grüße", "Grüße"),
        ("=?klingon?Q?abc?=", "abc"),
    ],
)
def test_headers(parsed: Callable, subject: str, title: str) -> None:
    ((document,), _) = parsed(Mail(path="x"), f"Subject: {subject}\n\nText.".encode())
    assert document.meta["title"] == title


FOOTER = "_______________\nusers mailing list\nusers@lists.example.org"


@pytest.mark.parametrize("length", [54, 55, 56, 57, 114, 400])
@pytest.mark.parametrize("footer", ["", FOOTER, f"\n{FOOTER}", "Regards", "-- \nAnn"])
def test_a_footer_behind_base64(parsed: Callable, length: int, footer: str) -> None:
    text = ("Grüße aus Köln – „hallo“. " * 20)[:length].strip()
    coded = base64.encodebytes(text.encode()).decode()
    head = "Subject: f\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: BASE64\n\n"
    ((document,), _) = parsed(Mail(path="x"), f"{head}{coded}{footer}".encode())
    assert document.text.strip() == f"{text}\n\n{footer.strip()}".strip()


def test_a_message_that_is_too_large_costs_itself(
    parsed: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "MAX_DOCUMENT_BYTES", 1000)
    box = write_mbox(tmp_path / "box", ["One.\n", "A line.\n" * 500, "Two.\n", "A line.\n" * 500])
    documents, aside = parsed(Mail(path="x"), box)
    assert [document.text.strip() for document in documents] == ["One.", "Two."]
    assert [entry.name for entry in aside if entry.reason.startswith("larger than")] == ["file#1", "file#3"]


@pytest.mark.parametrize("blank", ["\n", " \r\n\n", "\ufeff\n"])
def test_blank_lines_before_a_mailbox_change_nothing(parsed: Callable, tmp_path: Path, blank: str) -> None:
    box = write_mbox(tmp_path / "box", ["One.\n", "Two.\n"])
    assert parsed(Mail(path="x"), blank.encode() + box) == parsed(Mail(path="x"), box)


FLOWED = (
    "Lines that \r\nwere wrapped \r\nare one.\r\n From here on\r\n\r\n"
    "> quoted \r\n> words\r\n>> deeper \r\nreply\r\n-- \r\nMe"
)


@pytest.mark.parametrize(
    ("kind", "written", "text"),
    [
        (
            "flowed",
            FLOWED,
            "Lines that were wrapped are one.\nFrom here on\n\n> quoted words\n>> deeper \nreply\n-- \nMe",
        ),
        ("Flowed; delsp=yes", "文章 \r\nです。", "文章です。"),
        ("fixed", "as \nit is", "as \nit is"),
    ],
)
def test_paragraphs_that_a_sender_wrapped_are_whole(parsed: Callable, kind: str, written: str, text: str) -> None:
    head = f"Subject: x\r\nContent-Type: text/plain; charset=utf-8; format={kind}\r\n\r\n"
    (document,), _ = parsed(Mail(path="x"), (head + written).encode())
    assert document.text == text


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_of_a_signed_text_the_signature_is_left_out(parsed: Callable, end: str) -> None:
    text = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nText.\n- -- \nAnn\n"
    signature = "-----BEGIN PGP SIGNATURE-----\n\niQEzBAEB\n-----END PGP SIGNATURE-----\n"
    head = "A: b\n\nBefore.\n"
    ((document,), _) = parsed(Mail(path="x"), f"{head}{text}{signature}After.".replace("\n", end).encode())
    assert document.text.split() == ["Before.", "Text.", "--", "Ann", "After."]
    ((half,), _) = parsed(Mail(path="x"), f"{head}{text}".replace("\n", end).encode())
    assert half.text == f"Before.\n{text}".replace("\n", end)


def test_an_encrypted_text_is_skipped(parsed: Callable) -> None:
    armoured = "-----BEGIN PGP MESSAGE-----\n\nhQEMA1PAd7IzI6OvAQf/\n-----END PGP MESSAGE-----\n"
    documents, aside = parsed(Mail(path="x"), message(armoured).as_bytes())
    assert ([entry.reason for entry in aside], documents) == (["encrypted, by PGP"], [])


UUENCODED = "begin 644 cat.txt\n" + "".join(
    binascii.b2a_uu(b"A cat's whiskers and its tail."[at : at + 45]).decode() for at in (0, 45)
)
KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: 1\n\nmQENBFRi\n=x3Aq\n-----END PGP PUBLIC KEY BLOCK-----\n"


@pytest.mark.parametrize(
    "attached",
    [
        f"{UUENCODED}end\n",
        f"{UUENCODED}`\nend\n".replace("\n", "\r\n"),
        KEY,
        re.sub("^", "> > ", KEY.replace("PUBLIC KEY BLOCK", "SIGNATURE").strip(), flags=re.MULTILINE) + "\n",
        "-------------- next part --------------\nA non-text attachment was scrubbed...\nName: a.png\n"
        "Type: image/png\nSize: 189 bytes\nDesc: \nURL: <http://lists.example.org/a.png>\n",
        "-------------- next part --------------\n",
    ],
)
def test_what_is_attached_within_a_text_is_left_out(parsed: Callable, attached: str) -> None:
    (document,), _ = parsed(Mail(path="x"), f"Subject: x\n\nHere it is:\n{attached}begin 7 days early\nend".encode())
    assert document.text == "Here it is:\nbegin 7 days early\nend"


def test_parts_that_are_data_are_no_text(parsed: Callable) -> None:
    mail = message("Come at ten.")
    for kind, content in (("calendar", "BEGIN:VCALENDAR"), ("x-vcard", "BEGIN:VCARD")):
        mail.add_attachment(content, subtype=kind, disposition="inline")
    assert parsed(Mail(path="x"), mail.as_bytes())[0][0].text.strip() == "Come at ten."
    mail = message("<html amp4email>", subtype="x-amp-html")
    mail.add_alternative("<p>Seen.</p>", subtype="html")
    assert parsed(Mail(path="x"), mail.as_bytes())[0][0].text == "Seen."
