r"""Quantities: numbers with a unit, such as `$1,234.50`, `3 1/2 hours` or, in simple LaTeX, `\frac{1}{2}\text{ cm}`.

Two quantities are equal if their exact values are. A decimal of at least `ROUNDED_DIGITS` significant digits also
equals every exact value that rounds to it or is cut off to it: `0.333333` equals `1/3`, `0.3333` does not. Digits
after the fifteenth are ignored, as floating-point numbers have no more. Units matter only if both quantities have a
known one; values are then converted (`2 h` equals `120 minutes`, `5 cm` does not equal `5 m`). A percentage equals its
fraction and its bare number (`50%` equals `0.5` and `50`): the gold answers of GSM8K and MATH leave out the sign.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

from dpc_interp.mathematics.number_words import words_to_digits

NUMBER = re.compile(
    r"""(?P<sign>[-+\u2212]?)\s*(?P<currency>[$£€]?)\s*(?P<inner_sign>[-\u2212]?)
    (?: (?:(?P<integer>\d+)\s+)? (?P<numerator>\d+)\s*/\s*(?P<denominator>\d+)
      | (?P<decimal>\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)(?P<exponent>[eE][-+]?\d{1,3})? )
    (?P<unit>.*)""",
    re.VERBOSE,
)
ROUNDED_DIGITS, FLOAT_DIGITS = 6, 15
"""Significant digits from which a decimal counts as rounded; those that a floating-point number has."""
POWER_OF_TEN = re.compile(r"(?<=\d)\s*(?:\\times|\\cdot|[×·*x])\s*10\s*\^\s*\{?\s*\+?([-\u2212]?\d{1,3})\s*\}?(?!\d)")
UNIT_PATTERN = re.compile(r"(?:(?:square|cubic) )?[A-Za-z][A-Za-z '-]*(?:(?:/|\^|\^\{)?[A-Za-z23]+\}?)?")
ONE_LETTER_UNITS = set("mgshltJNWVAKCF")
SCALE_WORDS = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "dozen": 12}
NOT_A_UNIT = re.compile(
    r"\b(or|and|to|pi|sqrt|plus|minus|times|more|less|than|over|squared|cubed|factorial|remainder|mod|not|hal(f|ves)"
    r"|(third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|\w+(teen|ie|hundred|thousand)th)s?"
    r"|(hundred|thousand)ths?|sin|cos|tan|log|ln|trillion)\b",
    re.IGNORECASE,
)
"""Words after a number that change its value (`5 squared`) or add a second number (`17 or 18`), so they are no unit."""


def _unit_table(**dimensions: str) -> dict[str, tuple[str, Fraction]]:
    """Parse `name,other_name=size` pairs of each dimension; all sizes of a dimension are in the same base unit."""
    return {
        name: (dimension, Fraction(size))
        for dimension, units in dimensions.items()
        for names, size in (pair.split("=") for pair in units.split())
        for name in names.split(",")
    }


# Plurals are found by removing an s, hence entries such as `inche` and `pennie`. Years and months are a separate
# dimension because neither is a fixed number of days.
UNITS = _unit_table(
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
"""Singular name or symbol of a unit -> its dimension and its exact size in the base unit of that dimension."""


@dataclass(frozen=True)
class Quantity:
    """An exact value with a unit.

    Attributes:
        value: the number, in the unit that was written.
        unit: dimension and size of a known unit (a value of `UNITS`); "%"; None if the unit is absent or unknown.
        step: one unit of the last place of a decimal of at least `ROUNDED_DIGITS` digits; None: the value is exact.
    """

    value: Fraction
    unit: tuple[str, Fraction] | str | None = None
    step: Fraction | None = field(default=None, compare=False)


def read_quantity(text: str) -> Quantity | None:
    """Read a text that is one quantity and nothing else.

    Args:
        text: an answer, in plain text or simple LaTeX.

    Returns:
        The quantity; None if the text is not a single number, with or without a unit.
    """
    match = NUMBER.fullmatch(words_to_digits(_plain_text(text)))
    if match is None:
        return None
    step = None
    if match["denominator"]:
        if not int(match["denominator"]):
            return None
        value = int(match["integer"] or 0) + Fraction(int(match["numerator"]), int(match["denominator"]))
    else:
        value, step = _decimal(match["decimal"].replace(",", ""), match["exponent"] or "")
    if match["sign"] in ("-", "\u2212"):
        value = -value
    if match["inner_sign"]:  # `$-5`
        value = -value
    unit_text = match["unit"]
    for word, scale in SCALE_WORDS.items():
        if re.match(rf"\s+{word}\b", unit_text):
            value, unit_text = value * scale, unit_text.strip().removeprefix(word)
            step = None if step is None else step * scale
    if not unit_text.strip():
        return Quantity(value, UNITS.get(match["currency"]), step)
    if re.fullmatch(r"\s*(%|percent|per cent)", unit_text):
        return Quantity(value, "%", step)
    return _with_unit(value, step, unit_text)


def _decimal(digits: str, exponent: str) -> tuple[Fraction, Fraction | None]:
    """The value of a decimal, and one unit of its last place if it counts as rounded."""
    value = Fraction(digits.rstrip(".") + exponent)
    n_digits, (_, point, places) = len(digits.replace(".", "").lstrip("0")), digits.partition(".")
    if not point or n_digits < ROUNDED_DIGITS:
        return value, None
    n_ignored = max(n_digits - FLOAT_DIGITS, 0)
    return value, Fraction(f"1{exponent}") * Fraction(10) ** (n_ignored - len(places))


def same_quantity(a: Quantity, b: Quantity) -> bool:
    """Whether two quantities are equal, after conversion to the same unit.

    Args:
        a: a quantity.
        b: a quantity; the order does not matter.

    Returns:
        True if they are equal. If a unit is absent or unknown, only the values are compared; a percentage equals its
        bare number and its fraction.
    """
    if "%" in (a.unit, b.unit) and a.unit != b.unit:
        percent, other = (a, b) if a.unit == "%" else (b, a)
        values = (percent, _scaled(percent, Fraction(1, 100)))
        return other.unit is None and any(_same_value(value, other) for value in values)
    if isinstance(a.unit, tuple) and isinstance(b.unit, tuple):
        return a.unit[0] == b.unit[0] and _same_value(_scaled(a, a.unit[1]), _scaled(b, b.unit[1]))
    return _same_value(a, b)


def _same_value(a: Quantity, b: Quantity) -> bool:
    """Whether two values are equal, or one is a decimal to which the other rounds or is cut off."""
    rounded = [quantity for quantity in (a, b) if quantity.step is not None]
    if a.value == b.value or not rounded:
        return a.value == b.value
    decimal = min(rounded, key=lambda quantity: quantity.step or 0)
    step, exact = decimal.step or Fraction(0), b.value if decimal is a else a.value
    is_cut_off = abs(decimal.value) < abs(exact)
    return abs(decimal.value - exact) < step if is_cut_off else 2 * abs(decimal.value - exact) <= step


def _scaled(quantity: Quantity, factor: Fraction) -> Quantity:
    """The quantity in a unit that is `factor` times smaller, without its unit."""
    return Quantity(quantity.value * factor, None, None if quantity.step is None else quantity.step * factor)


def _with_unit(value: Fraction, step: Fraction | None, unit_text: str) -> Quantity | None:
    """The value with the unit that follows it; None if the text after the number is not a unit."""
    is_attached, unit = unit_text[0] != " ", unit_text.strip()
    if unit in ("°", "°C", "°F"):
        return Quantity(value, UNITS["°"] if unit == "°" else (unit, Fraction(1)), step)
    if unit in "$£€":
        return Quantity(value, UNITS[unit], step)
    words = re.findall(r"[A-Za-z]+", unit)
    if not UNIT_PATTERN.fullmatch(unit) or NOT_A_UNIT.search(unit):
        return None
    if len(words[0]) == 1 and (is_attached or words[0] not in ONE_LETTER_UNITS):  # `5x` is a product
        return None
    return Quantity(value, UNITS.get(_unit_name(unit)), step)


def _unit_name(unit: str) -> str:
    """The key of a unit in `UNITS`: `square centimeters`, `cm^2` and `cm^{2}` all become `cm2`."""
    name = re.sub(r"[\^{}]", "", unit.lower() if len(unit) > 1 else unit).replace(" per ", "/")
    power = "2" if name.startswith("square ") else "3" if name.startswith("cubic ") else ""
    base = re.sub("^(square|cubic) ", "", name)
    for word, symbol in (("centimet", "cm"), ("kilomet", "km"), ("millimet", "mm"), ("met", "m"), ("inch", "in")):
        if power and base.startswith(word):
            base = symbol
    if power and base in ("feet", "foot"):
        base = "ft"
    base = {"miles/hour": "mph", "kilometers/hour": "km/h", "meters/second": "m/s"}.get(base, base)
    return (base if base in UNITS else base.removesuffix("s")) + power


def _plain_text(text: str) -> str:
    r"""Rewrite simple LaTeX as plain text: `\frac{1}{2}`, `\text{ cm}`, `\$`, `\%`, `^\circ`, spacing commands."""
    text = text.strip().strip("$" if text.count("$") == 2 else "").strip().rstrip(".").strip()
    text = re.sub(r"\\(?:text|mathrm|mbox|textrm)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\\[dt]?frac\s*(?:\{(\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))", r" \1\2/\3\4", text)
    text = re.sub(r"(\d),\\!\s*(?=\d)|(\d)\{,\}(?=\d)", r"\1\2,", text)
    text = POWER_OF_TEN.sub(r"e\1", text)
    text = re.sub(r"(?<![\d.,/])(\d{1,3})((?:(?:\\[,;:! ]|[ ~\u00a0\u2009\u202f])\d{3})+)(?![\d/])", _join_digits, text)
    text = re.sub(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)", "°", text)
    text = re.sub(r"\\[,;:! ]|~", " ", text).replace("\\%", "%").replace("\\$", "$")
    text = text.replace("²", "^2").replace("³", "^3")
    return re.sub(r"\s+", " ", re.sub(r"\s+(?=\^)", "", text)).strip()


def _join_digits(match: re.Match[str]) -> str:
    r"""A number whose groups of three digits are separated by spaces: `9\,500`, `9 500`."""
    return match[1] + re.sub(r"\D", "", match[2])
