"""Personal addresses are replaced by ones that belong to nobody; text that only resembles them stays."""

import pyarrow as pa
import pytest

from bluejay.pile.text.pii import NOBODY, replace_personal

PERSONAL = {
    "e-mail": [
        "jane.doe@example-mail.org",
        "j+tag@sub.domain.co.uk",
        "O'Neil_77@mail.museum",
        "x@a.io",
        "Jane@Example.Com",
        "INFO@FIRMA.DE",
        "jörg.müller@example.de",
        "Élodie@bücher.example",
        "John@Enron.CoM",
        "me@my-site.photography",
        f"bounces+{'1234-' * 30}jane.doe=mail.example@lists.example.net",
    ],
    "phone": [
        "+44 20 7946 0958",
        "+49 (30) 123456",
        "+1-201-555-0123",
        "+33.1.23.45.67.89",
        "+31641044153",
        "(212) 555-1775",
        "1-800-273-8255",
        "206.256.9500",
        "+49 30/1234567",
        "+33\u00a01\u00a023\u00a045\u00a067\u00a089",
        "(212)\u00a0555\u20111775",
        "(212) 555 1775",
    ],
    "IP": ["8.8.8.8", "207.200.56.4", "2001:4860:4860::8888", "2a00:1450:4001:81b:0:0:0:200e"],
}
INNOCENT = [
    "matrix @ vector",
    "@decorator.method",
    "user@localhost",
    "scores = q@k.transpose(-2, -1)",
    "w@self.weight.T",
    "x@self.weight",
    "q@k.mT",
    "q@k.is-x",
    "q@k.is_x",
    "w@self.net.weight",
    "w@self.net.Weight(x)",
    "a@b.at[0]",
    "y = (x@layer.kernel) + b@module.bias",
    "m@np.linalg.inv(a)",
    "pkg@1.0.0",
    "sr_RS@latin.UTF-8",
    "127.0.0.1 and 192.168.0.12",
    "version 1.2.3.4.5",
    "256.1.1.1",
    "12:30:45",
    "std::vector a::b fe80::1",
    "pi is +3.14159265",
    "2024-06-28 12345678901",
    "ISBN 978-3-16-148410-0",
    "123-456-7890",
    "212-555-7890-12",
    "212-555-7890px",
    "1,234,567.89",
    "+1000/2000/300",
    *NOBODY.values(),
]


@pytest.mark.parametrize(("kind", "address"), [(kind, one) for kind, many in PERSONAL.items() for one in many])
@pytest.mark.parametrize("around", ["{}", "write to {}.", "({}), or", "<{}>", "a:\n{}\nb", "请发到{}谢谢"])
def test_personal_addresses_are_replaced(kind: str, address: str, around: str) -> None:
    nobody = NOBODY["IPv6" if ":" in address else kind]
    texts, counts = replace_personal(
        pa.array(["none", around.format(address), f"{around} {around}".replace("{}", address)])
    )
    assert texts.to_pylist()[:2] == ["none", around.format(nobody)]
    assert counts[kind] >= 2
    assert sum(counts.values()) == counts[kind]


@pytest.mark.parametrize("text", INNOCENT)
def test_text_that_resembles_an_address_stays(text: str) -> None:
    texts, counts = replace_personal(pa.array([text, f"so {text} is"]))
    assert texts.to_pylist() == [text, f"so {text} is"]
    assert sum(counts.values()) == 0


@pytest.mark.parametrize("unit", ["a_", "a.", "QmFzZTY0", "%20", "/a/b", "a@a-"])
def test_long_runs_without_spaces_take_time_in_proportion_to_their_length(unit: str) -> None:
    texts, counts = replace_personal(pa.array([unit * 40_000 + " jane@mail.org"]))
    assert texts.to_pylist() == [unit * 40_000 + " email@example.com"]
    assert counts["e-mail"] == 1


@pytest.mark.parametrize("behind", ["-- thanks", "--thanks", "-", "_", "_.", ".Please do", ".Please. Do"])
def test_an_address_ends_before_a_dash_an_underscore_and_a_sentence(behind: str) -> None:
    texts, counts = replace_personal(pa.array([f"at john.smith@enron.com{behind}"]))
    assert texts.to_pylist() == [f"at email@example.com{behind}"] and counts["e-mail"] == 1
    assert replace_personal(texts)[0] == texts


def test_an_extension_may_follow_a_phone_number() -> None:
    texts, counts = replace_personal(pa.array(["713-853-1234x567 or +1 (212) 555-1775x9"]))
    assert texts.to_pylist() == [f"{NOBODY['phone']}x567 or {NOBODY['phone']}x9"]
    assert counts["phone"] == 2


def test_all_kinds_are_replaced_in_one_text() -> None:
    text = "From: jane@mail.org (8.8.4.4)\nTel. +44 20 7946 0958, (212) 555-1775\n"
    texts, counts = replace_personal(pa.array([text], pa.large_string()))
    assert texts.to_pylist() == ["From: email@example.com (192.0.2.1)\nTel. 555-0100, 555-0100\n"]
    assert counts == {"e-mail": 1, "phone": 2, "IP": 1}
    assert texts.type == pa.large_string()
    assert replace_personal(texts) == (texts, dict.fromkeys(counts, 0))
