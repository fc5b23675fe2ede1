"""Values and units that are read from text, by hand, and the equality of quantities."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpc_interp.mathematics.quantities import UNITS, Quantity, read_quantity, same_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("17", 17),
        ("-3", -3),
        ("\u22123", -3),
        ("+4", 4),
        (".5", Fraction(1, 2)),
        ("17.", 17),
        ("1e3", 1000),
        ("2.5e-1", Fraction(1, 4)),
        ("1,234,567", 1234567),
        ("1/3", Fraction(1, 3)),
        ("3 1/2", Fraction(7, 2)),
        ("-3 1/2", Fraction(-7, 2)),
        ("\\frac{1}{2}", Fraction(1, 2)),
        ("\\dfrac34", Fraction(3, 4)),
        ("1\\frac{1}{2}", Fraction(3, 2)),
        ("1{,}000", 1000),
        ("1,\\!000", 1000),
        ("$17$", 17),
        ("3 million", 3_000_000),
        ("2 dozen", 24),
        ("17 apples", 17),
        ("$-5", -5),
        ("-$5", -5),
    ],
)
def test_values(text: str, value: Fraction | int) -> None:
    assert read_quantity(text).value == value


@pytest.mark.parametrize(
    ("text", "dimension", "size"),
    [
        ("$18", "dollar", 1),
        ("\\$18", "dollar", 1),
        ("50 cents", "dollar", Fraction(1, 100)),
        ("3 pennies", "dollar", Fraction(1, 100)),
        ("£7", "pound_sterling", 1),
        ("2 h", "time", 3600),
        ("2 weeks", "time", 7 * 24 * 3600),
        ("5 months", "years", 1),
        ("12 inches", "length", Fraction(254, 10000)),
        ("3 feet", "length", Fraction(3048, 10000)),
        ("1 mile", "length", Fraction(1609344, 1000)),
        ("5\\text{ cm}", "length", Fraction(1, 100)),
        ("12 square centimeters", "area", Fraction(1, 10**4)),
        ("12 cm^2", "area", Fraction(1, 10**4)),
        ("12 cm^{2}", "area", Fraction(1, 10**4)),
        ("12 cm²", "area", Fraction(1, 10**4)),
        ("1 square foot", "area", Fraction(3048, 10000) ** 2),
        ("1 cubic meter", "volume", 1000),
        ("60 miles per hour", "speed", Fraction(1609344, 10**6)),
        ("90^\\circ", "angle", 1),
    ],
)
def test_units(text: str, dimension: str, size: Fraction | int) -> None:
    assert read_quantity(text).unit == (dimension, size)


@pytest.mark.parametrize("text", ["50%", "50\\%", "50 percent", "50 per cent"])
def test_percent(text: str) -> None:
    assert read_quantity(text) == Quantity(Fraction(50), "%")


@pytest.mark.parametrize("text", ["17", "17 apples", "17 red apples", "17 parsecs"])
def test_no_known_unit(text: str) -> None:
    assert read_quantity(text) == Quantity(Fraction(17), None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "apples",
        "17 or 18",
        "17 and 18",
        "5 pi",
        "5x",
        "5 x",
        "5 squared",
        "2 thirds",
        "1/0",
        "1,2",
        "12,34",
        "x = 5",
        "(5)",
        "2^3",
        "\\sqrt{2}",
    ],
)
def test_no_single_quantity(text: str) -> None:
    assert read_quantity(text) is None


def test_sizes_of_related_units() -> None:
    """Areas, volumes and speeds, from the lengths and times that they are made of."""
    size = {name: unit[1] for name, unit in UNITS.items()}
    for name in ("km", "cm", "mm", "in", "ft"):
        assert size[f"{name}2"] == size[name] ** 2, name
    for name in ("cm", "mm"):
        assert size[f"{name}3"] == size[name] ** 3 * size["m3"], name
    assert size["ml"] == size["cm3"]
    assert size["pound"] == 16 * size["ounce"]
    assert size["yard"] == 3 * size["foot"] == 36 * size["inch"]
    assert size["mile"] == 1760 * size["yard"]
    assert size["m/s"] == Fraction(3600, 1000)
    assert size["mph"] == size["mile"] / size["km"]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("2 h", "120 minutes", True),
        ("2 h", "2 minutes", False),
        ("2 h", "2", True),
        ("5 cm", "5 m", False),
        ("5 cm", "5 kg", False),
        ("50%", "1/2", True),
        ("50%", "50", True),
        ("50%", "5", False),
        ("50%", "50%", True),
        ("50%", "0.5%", False),
        ("5%", "5 cm", False),
        ("17 apples", "17 pears", True),
        ("2 years", "24 months", True),
        ("£7", "€7", False),
    ],
)
def test_same_quantity(a: str, b: str, expected: bool) -> None:
    assert same_quantity(read_quantity(a), read_quantity(b)) is expected
    assert same_quantity(read_quantity(b), read_quantity(a)) is expected


@given(st.fractions(max_denominator=1000))
def test_every_fraction_is_read_exactly(value: Fraction) -> None:
    assert read_quantity(f"{value.numerator}/{value.denominator}") == Quantity(value, None)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_every_decimal_is_read_exactly(value: object) -> None:
    assert read_quantity(f"{value:,f} kg") == Quantity(Fraction(str(value)), UNITS["kg"])
