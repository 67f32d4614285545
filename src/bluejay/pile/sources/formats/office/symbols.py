"""What the fonts Symbol and Wingdings draw, which documents have as private codes."""

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


MARKS = """
22✂ 28☎ 2a✉ 4a☺ 4b😐 4c☹ 6c● 6d❍ 6e■ 6f□ 70❐ 71❑ 72❒ 73⬧ 74⧫ 75◆ 76❖ 77⬥ 80⓪ 81① 82② 83③ 84④ 85⑤ 86⑥ 87⑦ 88⑧ 89⑨ 8a⑩
8b⓿ 8c❶ 8d❷ 8e❸ 8f❹ 90❺ 91❻ 92❼ 93❽ 94❾ 95❿ 9e· 9f• a1○ a7▪ a8◻ d8➢ df← e0→ e1↑ e2↓ e8➔ ef⇦ f0⇨ f1⇧ f2⇩ fb✗ fc✓ fd☒ fe☑
"""
"""What the font Wingdings draws for the codes that texts have as marks and arrows."""
WINGDINGS = {SYMBOL_CODES + int(pair[:2], 16): pair[2:] for pair in MARKS.split()}
OPEN_SYMBOL = {**SYMBOL, **{code: mark for code, mark in WINGDINGS.items() if code > SYMBOL_CODES + 0xA0}}
"""The font that LibreOffice takes for both, whose codes do not say which: Symbol's letters, and Wingdings' marks."""
FONTS = {"symbol": SYMBOL, "symbolmt": SYMBOL, "wingdings": WINGDINGS, "opensymbol": OPEN_SYMBOL}
"""A font -> what it draws for its private codes."""


def from_symbol_font(font: str, text: str) -> str:
    """A text with what a font of symbols draws for its private codes; that of other fonts unchanged.

    >>> from_symbol_font("Symbol", "\uf061"), from_symbol_font("ABCDEF+Wingdings-Regular", "\uf0e0")
    ('α', '→')
    """
    name = font.rpartition("+")[2].lower().removesuffix("-regular")
    return text.translate(FONTS[name]) if name in FONTS else text
