"""The letters of the font Symbol, which documents have as codes of their own."""

SYMBOL_CODES = 0xF000
"""Where the private codes of symbol fonts begin; the character of the font's code 0x61 is U+F061."""
LETTERS = (
    " !∀#∃%&∋()∗+,−./0123456789:;<=>?≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_‾αβχδεφγηιϕκλμνοπθρστυϖωξψζ{|}∼",
    "€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…⏐⎯↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓◊〈®©™∑",
)
"""What the font draws for its codes from 0x20 on, and from 0xA0 on."""
SYMBOL = {
    SYMBOL_CODES + first + number: letter
    for first, letters in zip((0x20, 0xA0), LETTERS, strict=True)
    for number, letter in enumerate(letters)
}


def from_symbol_font(font: str, text: str) -> str:
    """A text with the letters that the font Symbol draws for its private codes; that of other fonts unchanged."""
    return text.translate(SYMBOL) if font.lower() == "symbol" else text
