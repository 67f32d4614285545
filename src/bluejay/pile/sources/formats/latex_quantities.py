r"""Numbers with units in LaTeX, as the packages siunitx and units write them: \SI{5}{\kilo\metre} is "5 km"."""

import re

QUANTITIES = {"SI": 2, "qty": 2, "si": 1, "unit": 1, "ang": 1, "SIrange": 3, "qtyrange": 3, "numrange": 2}
QUANTITIES |= {"SIlist": 2, "qtylist": 2, "numlist": 1}
"""A command -> the number of its arguments."""
PREFIXES = """
quecto=q ronto=r yocto=y zepto=z atto=a femto=f pico=p nano=n micro=µ milli=m centi=c deci=d deca=da hecto=h kilo=k
mega=M giga=G tera=T peta=P exa=E zetta=Z yotta=Y kibi=Ki mebi=Mi gibi=Gi tebi=Ti
"""
UNITS = """
metre=m meter=m gram=g second=s ampere=A kelvin=K mole=mol candela=cd hertz=Hz newton=N pascal=Pa joule=J watt=W
coulomb=C volt=V farad=F ohm=Ω tesla=T weber=Wb henry=H lumen=lm lux=lx celsius=°C degreeCelsius=°C degree=°
arcminute=′ arcsecond=″ minute=min hour=h day=d litre=l liter=L tonne=t electronvolt=eV decibel=dB byte=B percent=%
dalton=Da hectare=ha radian=rad steradian=sr angstrom=Å siemens=S sievert=Sv gray=Gy becquerel=Bq kilogram=kg um=µm
us=µs ul=µl uL=µL ug=µg uA=µA uV=µV uW=µW uF=µF uH=µH umol=µmol
"""
SYMBOLS = {name: symbol for name, _, symbol in (pair.partition("=") for pair in (PREFIXES + UNITS).split())}
IS_PREFIX = frozenset(pair.partition("=")[0] for pair in PREFIXES.split())
BEFORE, AFTER = {"square": "²", "cubic": "³"}, {"squared": "²", "cubed": "³"}
PART = re.compile(r"\\(?:(?:tothe|raiseto)\s*\{(?P<power>[^{}]*)\}|(?P<name>[a-zA-Z]+))|(?P<text>[^\\]+)")


def quantity(name: str, arguments: list[str], option: str) -> str:
    """The text of a command of QUANTITIES with these arguments. The package units has the number as an option.

    >>> quantity("SIrange", ["1", "5", r"\\kilo\\metre\\per\\second"], "")
    '1 to 5 km/s'
    """
    if name == "ang":
        return f"{arguments[0]}°"
    numbers = arguments if name.startswith("num") else arguments[:-1]
    if name.endswith("list"):
        numbers = [", ".join(number.strip() for number in numbers[0].split(";"))]
    elif name == "unit" and option.strip():
        numbers = [option.strip()]
    parts = [" to ".join(numbers), "" if name.startswith("num") else unit(arguments[-1])]
    return " ".join(filter(None, parts)).replace(" °", "°" if parts[1] == "°" else " °")


def unit(source: str) -> str:
    r"""The symbol of a unit that is given by commands or letters."""
    text = power = ""
    for part in PART.finditer(source):
        name = part["name"]
        if name is None:
            text = text.rstrip(" ") + f"^{part['power']} " if part["power"] else text + (part["text"] or "").strip()
        elif name == "per":
            text = text.rstrip(" ") + "/"
        elif name in BEFORE:
            power = BEFORE[name]
        elif name in AFTER:
            text = text.rstrip(" ") + AFTER[name] + " "
        elif name in IS_PREFIX:
            text += SYMBOLS[name]
        else:
            text, power = f"{text}{SYMBOLS.get(name, name)}{power} ", ""
    return re.sub(r"[~.](?=\D)", " ", text.replace("{", "").replace("}", "")).strip()
