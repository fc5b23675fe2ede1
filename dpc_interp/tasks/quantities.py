r"""A number with its unit, read from plain text or simple LaTeX: `$1,234.50`, `3 1/2 hours`, `\frac{1}{2}\text{ cm}`.

Two quantities are equal if their values are, exactly; units count only where both have a known one, and are then
converted (`2 h` = `120 minutes`, `5 cm` is not `5 m`). A percent is met by its fraction and by its bare number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

NUMBER = re.compile(
    r"""(?P<sign>[-+\u2212]?)\s*(?P<currency>[$£€]?)\s*(?P<sign2>-?)
    (?: (?:(?P<whole>\d+)\s+)? (?P<top>\d+)\s*/\s*(?P<bottom>\d+)
      | (?P<decimal>\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)(?P<exponent>[eE][-+]?\d{1,3})? )
    (?P<unit>.*)""",
    re.VERBOSE,
)
UNIT = re.compile(r"(?:(?:square|cubic) )?[A-Za-z][A-Za-z '-]*(?:(?:/|\^|\^\{)?[A-Za-z23]+\}?)?")
SINGLE_LETTERS = set("mgshltJNWVAKCF")
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "dozen": 12}
# Words behind a number that make it another number, or none.
NOT_UNITS = re.compile(
    r"\b(or|and|to|pi|sqrt|plus|minus|times|more|less|than|over|squared|cubed|factorial|remainder|mod|not|hal(f|ves)"
    r"|(third|quarter|fourth|fifth|tenth)s?|sin|cos|tan|log|ln|trillion)\b",
    re.IGNORECASE,
)


def _table(**dimensions: str) -> dict[str, tuple[str, Fraction]]:
    """`name=size` pairs of each dimension, sizes in its first unit."""
    return {
        name: (dimension, Fraction(size))
        for dimension, listed in dimensions.items()
        for names, size in (pair.split("=") for pair in listed.split())
        for name in names.split(",")
    }


KNOWN = _table(
    length="m,meter,metre=1 km,kilometer,kilometre=1000 cm,centimeter,centimetre=1/100 mm,millimeter,millimetre=1/1000 "
    "in,inch,inche=127/5000 ft,foot,feet=381/1250 yd,yard=1143/1250 mi,mile=201168/125",
    area="m2=1 km2=1000000 cm2=1/10000 mm2=1/1000000 in2=16129/25000000 ft2=145161/1562500",
    volume="l,liter,litre=1 ml,milliliter,millilitre=1/1000 m3=1000 cm3=1/1000 mm3=1/1000000",
    mass="g,gram=1 kg,kilogram=1000 mg,milligram=1/1000 lb,pound=45359237/100000 oz,ounce=45359237/1600000",
    time="s,sec,second=1 min,minute=60 h,hr,hour=3600 day=86400 week=604800",
    years="year=12 month=1",
    speed="km/h,kph=1 m/s=18/5 mph,mile/h=25146/15625",
    dollar="$,dollar,usd=1 cent,penny,pennie=1/100",
    pound_sterling="£=1",
    euro="€,euro=1",
    angle="°,degree=1",
)


@dataclass(frozen=True)
class Quantity:
    """An exact value; `unit` is a dimension with a size, "%", or None where unknown or absent."""

    value: Fraction
    unit: tuple[str, Fraction] | str | None


def read_quantity(text: str) -> Quantity | None:
    """The quantity that `text` is, and nothing else; None where it is no single number."""
    match = NUMBER.fullmatch(_plain(text))
    if match is None:
        return None
    if match["bottom"]:
        if not int(match["bottom"]):
            return None
        value = int(match["whole"] or 0) + Fraction(int(match["top"]), int(match["bottom"]))
    else:
        value = Fraction(match["decimal"].replace(",", "").rstrip(".") + (match["exponent"] or ""))
    if match["sign"] in ("-", "\u2212"):
        value = -value
    if match["sign2"]:
        value = -value
    spelled = match["unit"]
    for word, scale in SCALES.items():
        if re.match(rf"\s+{word}\b", spelled):
            value, spelled = value * scale, spelled.strip().removeprefix(word)
    if not spelled.strip():
        return Quantity(value, KNOWN.get(match["currency"]))
    if re.fullmatch(r"\s*(%|percent|per cent)", spelled):
        return Quantity(value, "%")
    return _with_unit(value, spelled)


def same_quantity(a: Quantity, b: Quantity) -> bool:
    """Whether two quantities are equal; where one unit is absent or not known, their values alone count."""
    if "%" in (a.unit, b.unit) and a.unit != b.unit:
        percent, other = (a, b) if a.unit == "%" else (b, a)
        return other.unit is None and other.value in (percent.value, percent.value / 100)
    if isinstance(a.unit, tuple) and isinstance(b.unit, tuple):
        return a.unit[0] == b.unit[0] and a.value * a.unit[1] == b.value * b.unit[1]
    return a.value == b.value


def _with_unit(value: Fraction, spelled: str) -> Quantity | None:
    attached, unit = spelled[0] != " ", spelled.strip()
    if unit in ("°", "°C", "°F"):
        return Quantity(value, KNOWN["°"] if unit == "°" else (unit, Fraction(1)))
    words = re.findall(r"[A-Za-z]+", unit)
    if not UNIT.fullmatch(unit) or NOT_UNITS.search(unit):
        return None
    if len(words[0]) == 1 and (attached or words[0] not in SINGLE_LETTERS):  # `5x` is a product
        return None
    return Quantity(value, KNOWN.get(_unit_name(unit)))


def _unit_name(unit: str) -> str:
    """One spelling for each known unit: `square centimeters`, `cm^2`, `cm^{2}` are all `cm2`."""
    name = re.sub(r"[\^{}]", "", unit.lower() if len(unit) > 1 else unit).replace(" per ", "/")
    power = "2" if name.startswith("square ") else "3" if name.startswith("cubic ") else ""
    base = re.sub("^(square|cubic) ", "", name)
    for word, symbol in (("centimet", "cm"), ("kilomet", "km"), ("millimet", "mm"), ("met", "m"), ("inch", "in")):
        if power and base.startswith(word):
            base = symbol
    if power and base in ("feet", "foot"):
        base = "ft"
    base = {"miles/hour": "mph", "kilometers/hour": "km/h", "meters/second": "m/s"}.get(base, base)
    return (base if base in KNOWN else base.removesuffix("s")) + power


def _plain(text: str) -> str:
    r"""Simple LaTeX as plain text: `\frac{1}{2}`, `\text{ cm}`, `\$`, `\%`, `^\circ`, spaces."""
    text = text.strip().strip("$" if text.count("$") == 2 else "").strip().rstrip(".").strip()
    text = re.sub(r"\\(?:text|mathrm|mbox|textrm)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\\[dt]?frac\s*(?:\{(\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))", r" \1\2/\3\4", text)
    text = re.sub(r"(\d),\\!\s*(?=\d)|(\d)\{,\}(?=\d)", r"\1\2,", text)
    text = re.sub(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)", "°", text)
    text = re.sub(r"\\[,;:! ]|~", " ", text).replace("\\%", "%").replace("\\$", "$")
    text = text.replace("²", "^2").replace("³", "^3")
    return re.sub(r"\s+", " ", re.sub(r"\s+(?=\^)", "", text)).strip()
