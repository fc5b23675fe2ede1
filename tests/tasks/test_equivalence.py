"""Equality of answers, against pairs that were labelled by hand as equal or different in mathematics.

A percentage equals its fraction and its bare number, because gold answers of GSM8K and MATH leave out the sign. A unit
that only one side states does not count.
"""

from __future__ import annotations

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dpc_interp.mathematics import symbolic
from dpc_interp.mathematics.symbolic import MAX_SYMBOLIC_LENGTH
from dpc_interp.tasks.equivalence import equal

EQUAL = r"""
17 | 17
17.0 | 17
017 | 17
-3 | -3
−3 | -3
+4 | 4
.5 | 0.5
1e3 | 1000
17. | 17
 17  | 17
17 apples | 17
17 red apples | 17
17 apples in total | 17
$18 | 18
18 | $18
$18.00 | 18
18 dollars | $18
50 cents | $0.50
-$5 | -5
$-5 | -5
£7 | 7
€7.50 | 7.5
1,234 | 1234
1,234,567 | 1234567
$1,234.50 | 1234.5
12,345 people | 12345
3 million | 3000000
2 dozen | 24
2 hours | 120 minutes
5 cm | 5 centimeters
1 km | 1000 m
3 feet | 1 yard
12 inches | 1 foot
60 mph | 60 miles per hour
90 degrees | 90
90^\circ | 90
45° | 45
5\text{ cm} | 5
12\text{ cm}^2 | 12 square centimeters
12 cm^2 | 12 cm²
50% | 50
50\% | 50
50% | 0.5
50 percent | 50%
12.5\% | 12.5
5% | 1/20
1/2 | 0.5
2/4 | 1/2
-1/2 | -0.5
3 1/2 | 3.5
7/1 | 7
1:2 | 2:4
\frac{1}{2} | 1/2
\frac12 | 0.5
\dfrac{3}{4} | \frac{3}{4}
\tfrac{6}{8} | \frac34
-\frac{1}{2} | \frac{-1}{2}
1\frac{1}{2} | \frac{3}{2}
\frac{\pi}{2} | \frac12\pi
$\frac{1}{2}$ | 0.5
\(7\) | 7
\sqrt{8} | 2\sqrt{2}
sqrt(8) | 2\sqrt{2}
\frac{1}{\sqrt{2}} | \frac{\sqrt{2}}{2}
2^{10} | 1024
x + 1 | 1 + x
(x+1)^2 | x^2 + 2x + 1
2(x+3) | 2x+6
x = 5 | 5
5 | x=5
3 + 2i | 2i + 3
\frac{x^2-1}{x-1} | x+1
(1,2) | (1, 2)
(1, \frac{1}{2}) | (1, 0.5)
(3, -1) | (3.0, -1)
\left( 3, \frac{\pi}{2} \right) | (3,\pi/2)
[0, 1] | [0,1]
[0, 1) | [0,1)
(0, 1] | (0,1.0]
(-\infty, 3) | (-\infty,3)
(-inf, 3) | (-\infty,3)
x < 3 | (-\infty,3)
(-\infty,1)\cup(2,\infty) | (2,\infty) \cup (-\infty,1)
\{1,2\} | \{2,1\}
1,2 | 2,1
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{pmatrix}1\\2\end{pmatrix}
B | B
(B) | B
B) | B
B. | B
(C) 21 | C
B | (B)
\text{(B)} | B
\text{east} | east
East | \text{east}
Monday | monday
17, because 9 + 8 = 17 | 17
"""

# One row of pairs for each kind of input that failed in real use.
EQUAL_BY_KIND = {
    "numbers": r"""
- 3 | -3
$-3 | -3
+3 | 3
(72) | 72
[72] | 72
\$72 | 72
€72 | 72
72€ | 72
72 € | €72
~72 | 72
\approx 72 | 72
about 72 | 72
x = 72 | 72
9 + 8 = 17 | 17
17 = 9 + 8 | 17
total = 72 | 72
f(3) = 12 | 12
5/6 | \frac{5}{6}
3 1/2 | 7/2
1e3 | 1000
2^5 | 32
3 million | 3000000
10:30 | 10:30
10:30 am | 10:30 A.M.
−3 | -3
７２ | 72
""",
    "letters": r"""
(b) | B
: B | B
**B** | B
option B | B
Option (B) | B
the correct option is B | the correct option is B
B | b
$B$ | B
[B] | B
b | B
(B) | b
\textbf{(B)}\ 25 | B
\text{B} | B
\mathrm{B} | B
B. 25 km | B
B: 25 km | B
(B) 25 | B
B) 25 km | \text{(B)}
B - 25 | B
B is correct | B
B is the correct answer | B
B, because 9 is odd | B
B | option B
(b) | Option (B)
B) 25 | choice B
the correct option is B | B
B | option B: 25
(A) 3, not (B) | A
A. 25 C | A
(A) P(B) | A
""",
    "markup": r"""
{(3,4]} | (3,4]
{{17}} | 17
\mathbf{\frac12} | \frac12
\boldsymbol{17} | 17
\displaystyle\frac12 | 0.5
**17** | 17
__17__ | 17
`17` | 17
*17* | 17
**$17$** | 17
\boxed{17} | 17
$$17$$ | 17
\[17\] | 17
17\\ | 17
9\,500 | 9500
9\;500 | 9,500
9\ 500\ 000 | 9500000
9 500 | 9500
9~500 | 9500
9{,}500 | 9500
10,\!080 | 10080
""",
    "ratios": r"""
3:4:5 | 6:8:10
3 : 4 | 6:8
1:2 | 1/2
3 to 4 | 3:4
0.5:1 | 1:2
3/2:1 | 3:2
""",
    "infinity": r"""
\infty | infinity
∞ | \infty
-\infty | -infinity
+\infty | \infty
inf | Infinity
(-infinity, 3) | (-\infty,3)
[2, ∞) | [2,\infty)
negative infinity | -\infty
minus infinity | -∞
Negative \infty | -\infty
(negative infinity, 3) | (-\infty,3)
positive infinity | \infty
""",
    "powers of ten": r"""
3\times10^5 | 3e5
3 \times 10^{5} | 300000
3\cdot10^5 | 3E5
3 x 10^5 | 300000
3*10^5 | 300000
3 × 10⁵ | 300000
1.5\times10^{-3} | 0.0015
6.7 \times 10^{-5} | .000067
""",
    "bases": r"""
52_8 | 52_{8}
52_8 | 52
52_8 | 42
101_2 | 5
101_2 | 11_4
52_{\text{eight}} | 52_8
52 base 8 | 52_8
52₈ | 52_8
(52)_8 | 52_8
1A_{16} | 26
""",
    "decimals": r"""
1.414214 | \sqrt2
1.41421 | \sqrt{2}
1.414213 | \sqrt{2}
0.0833333333333333 | \frac1{12}
0.333333 | 1/3
0.6666666666666666 | 2/3
0.6666666666666667 | \frac23
0.30000000000000004 | 0.3
2.9999999999999996 | 3
3.14159 | \pi
2.718282 | e
6.283185 | 2\pi
0.5\sqrt{2} | \frac{\sqrt{2}}{2}
33.3333% | 1/3
""",
    "lists": r"""
x=5, x=-3 | \{-3,5\}
x = 5 or x = -3 | -3, 5
5 and -3 | -3,5
17 or 18 | 18, 17
1,2,2 | 2,1
1 \pm \sqrt{19} | 1+\sqrt{19}, 1-\sqrt{19}
\pm 5 | 5, -5
\{1\pm\sqrt{5},-2\} | -2, 1+\sqrt5, 1-\sqrt5
5 \text{ or } 6 | 6, 5
3, 5, and 7 | 3,5,7
(1,2), (3,4) | (3,4) \text{ and } (1,2)
""",
    "named values": r"""
3,5 | x=3,y=5
x=3, y=5 | 3, 5
x = 3 and y = 5 | 3 and 5
y=5, x=3 | x=3, y=5
(3,5) | x=3, y=5
x=3, y=5 | (3,5)
x_1=5, x_2=3 | 3,5
\{3,5\} | x=5, x=3
""",
    "numbers in words": r"""
five | 5
thirteen | 13
Nineteen | 19
twenty-five | 25
twenty five apples | 25
one hundred and five | 105
two thousand | 2000
2,000 | two thousand
minus five | -5
five and six | 6, 5
""",
    "words": r"""
Cairo | cairo
yes | Yes
No | no
New York. | new york
\textbf{Cairo} | Cairo
""",
    "expressions": r"""
x^2+1 | 1+x^2
7! | 5040
(1+i)^2 | 2i
e^{i\pi} | -1
√2 | \sqrt{2}
x**2 + 1 | x^2+1
\frac{1}{2^{99}} | 2^{-99}
52_8 + 1 | 43
y = 2x + 3 | 2x + 3
""",
}

DIFFERENT = r"""
17 | 71
-3 | 3
17.5 | 17
0.333 | 1/3
3.14 | \pi
17 or 18 | 17
17 and 18 | 18
1,234 | 1.234
1,2 | 12
12,34 | 1234
3 million | 3
5 cm | 5 m
5 cm | 5 kg
2 hours | 2 minutes
2 hours | 60 minutes
50 cents | 50 dollars
£7 | €7
5\text{ cm} | 5\text{ m}
12 cm^2 | 12 cm
5% | 5 cm
50% | 5
0.5% | 0.05
5% | 0.5
1/2 | 2/1
1/2 | 12
1 1/2 | 11/2
3 1/2 | 3/2
5 pi | 5
5x | 5
5 | 5\pi
\frac{1}{2} | \frac{2}{1}
\frac{1}{2} | \frac{1}{3}
2\sqrt{2} | 2
\sqrt{8} | 8
x + 1 | x - 1
x + 1 | y + 1
(x+1)^2 | x^2 + 1
x = 5 | 6
3 + 2i | 3 - 2i
(1,2) | (2,1)
(3,-1) | (5,-2)
(1,2) | (1,2,3)
(1,2) | [1,2]
[0,1) | [0,1]
[0,1) | (0,1]
(0,1] | (0,2]
(-\infty,3) | (-\infty,3]
x < 3 | (3,\infty)
x \le 3 | (-\infty,3)
\{1,2\} | \{1,3\}
1,2 | 1,2,3
\begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}1\\3\end{pmatrix}
B | C
BC | B
17 | B
B | 17
A dog | A
east | west
tea | ate
grandmother | grandfather
 | 17
"""

DIFFERENT_BY_KIND = {
    "numbers": r"""
5 | 5/6
3 | 3 1/2
3 | 3x
17 or 18 | 17
9 + 8 = 18 | 17
1 | 1e3
10 | 10:30
-3 | +3
5x - 7y = 0 | 0
x + y = 72 | 72
""",
    "letters": r"""
A dog | A
a dog | A
A or B | A
A/B | A
A and B | A
A, B | A
(A) or (B) | A
A, B and C | A
F | A
b | C
(B) 25 | C
a | 1
x | A
apple | A
(A) 3 (B) 4 | A
A) 3 B) 4 | A
A. 3, B. 4, C. 5 | A
(a) 3 (b) 4 | A
(B) 3 (C) 4 | B
A - 3, B - 4 | A
A, B, C, D | A
(A), (B), (C) | A
(A) 3 (C) 5 | A
C | option B
25 | option B
""",
    "tiny numbers": r"""
1/2004! | 1/2006!
1/2^{99} | 1/2^{98}
\frac{1}{2^{99}} | 0
10^{-20} | 10^{-21}
2^{-99} | 2^{-98}
x/2^{99} | x/2^{98}
[0, 1/2^{99}] | [0, 1/2^{98}]
\{1/2^{99}\} | \{1/2^{98}\}
\begin{pmatrix}1/2^{99}\\2\end{pmatrix} | \begin{pmatrix}1/2^{98}\\2\end{pmatrix}
1+1/2^{99} | 1
""",
    "bases": r"""
52_8 | 52_9
101_2 | 101_3
52_8 | 53
52_8 | 52_{10}
40_9 | 40_8
1011_2 | 1010_2
52_8 + 1 | 53
92_8 | 92_9
""",
    "decimals": r"""
0.33 | 1/3
0.3333 | 1/3
1.414 | \sqrt2
1.414215 | \sqrt2
3.1416 | \pi
0.333334 | 1/3
0.083 | \frac1{12}
0.333333 | 0.3333333
1.414214 | 1.4142136
0.99999999 | 1
2.718283 | e
""",
    "ratios": r"""
3:4:5 | 6:8:11
3:4:5 | 3:4
10:00 | 11:00
1:2 | 2
3:4 | 4:3
""",
    "infinity": r"""
\infty | -\infty
infinity | 0
(2, infinity) | (3, \infty)
negative infinity | \infty
positive infinity | -\infty
infinity | negative infinity
""",
    "powers of ten": r"""
3\times10^5 | 3e6
3\times10^{-5} | 3e5
2.5\times 10^3 | 2.5
""",
    "lists": r"""
x=5, x=-3 | 5
x=5, x=-3 | \{5,3\}
1, 2, 3 | 1, 2
x=5, y=3 | x=3, y=5
3,5 | x=5,y=3
x=5, y=3 | 3, 5
3 and 5 | x=5 and y=3
(3,5) | x=5, y=3
x=5, y=3 | (3,5)
x=3, y=5, z=7 | 3, 5
five or six | 5
\pm 5 | 5
""",
    "words": r"""
thirteen | 30
twenty | 2
one hundred and five | 100
two thousand | 1000
five and six | 11
two thirds | 2
five sixths | 5
two and a half | 2
no | on
yes | no
Cairo | Rome
Cairo | 17
""",
    "markup": r"""
{(3,4]} | (3,4)
9\,500 | 9
\mathbf{\frac12} | \frac13
2**3 | 23
""",
}


def pairs(table: str) -> list[tuple[str, str]]:
    """The rows of a table; in the last row of `DIFFERENT` the answer is empty."""
    rows = [line.split(" | ") if " | " in line else ["", line.strip(" |")] for line in table.strip("\n").splitlines()]
    return [(answer, gold) for answer, gold in rows]


def test_the_table_is_large_enough() -> None:
    assert len(set(pairs(EQUAL))) >= 80
    assert len(set(pairs(DIFFERENT))) >= 55


@pytest.mark.parametrize(("answer", "gold"), pairs(EQUAL))
def test_equal(answer: str, gold: str) -> None:
    assert equal(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), pairs(DIFFERENT))
def test_different(answer: str, gold: str) -> None:
    assert not equal(answer, gold)


@pytest.mark.parametrize(
    ("kind", "answer", "gold"), [(kind, *pair) for kind, table in EQUAL_BY_KIND.items() for pair in pairs(table)]
)
def test_equal_by_kind(kind: str, answer: str, gold: str) -> None:
    assert equal(answer, gold)


@pytest.mark.parametrize(
    ("kind", "answer", "gold"), [(kind, *pair) for kind, table in DIFFERENT_BY_KIND.items() for pair in pairs(table)]
)
def test_different_by_kind(kind: str, answer: str, gold: str) -> None:
    assert not equal(answer, gold)


@pytest.mark.parametrize("text", ["\\frac{1", "}{", "???", "((", "\\begin{pmatrix} 1", "$$"])
def test_an_answer_that_cannot_be_parsed_equals_only_itself(text: str) -> None:
    assert equal(text, text)
    assert not equal(text, "1")
    assert not equal("x + 1", text)


def test_long_answers_are_compared_as_text() -> None:
    long = " + ".join(["x"] * MAX_SYMBOLIC_LENGTH)
    assert equal(long, long)
    assert not equal(long, f"{MAX_SYMBOLIC_LENGTH}x")


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("x^2+1", "1+x^2", True),
        ("7!", "5040", True),
        ("x + 1", "x - 1", False),
        ("10000001x", "10000001 x", True),
        ("2^{2^2}", "16", True),
        ("10^{10^{10}}x", "x", False),
    ],
)
def test_a_thread_gets_the_same_verdict(answer: str, gold: str, expected: bool) -> None:
    """The caches are emptied, so that the thread compares for itself."""
    assert equal(answer, gold) is expected
    symbolic.same_expression.cache_clear()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(equal, answer, gold).result() is expected


def test_the_alarm_and_the_handler_of_the_caller_survive() -> None:
    def handler(*_: object) -> None:
        raise AssertionError("the alarm is far away")

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.alarm(1000)
        assert equal("x^2+2", "2+x^2")
        assert signal.getsignal(signal.SIGALRM) is handler
        assert 0 < signal.alarm(0) <= 1000
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def test_plain_answers_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic.WORKERS, "call", lambda *request: pytest.fail(f"process called: {request}"))
    for table in (EQUAL_BY_KIND["letters"], EQUAL_BY_KIND["words"], EQUAL_BY_KIND["powers of ten"]):
        assert all(equal(answer, gold) for answer, gold in pairs(table))
    assert equal("1,234", "1234.0")
    assert not equal("17", "18")


def documented_pairs() -> list[list[str]]:
    """Answer, gold and both verdicts of every row of the tables of `docs/answers.md` that have four columns."""
    text = (Path(__file__).parents[2] / "docs" / "answers.md").read_text(encoding="utf-8")
    return [list(row) for row in re.findall(r"^\| `(.+)` \| `(.+)` \| (yes|no) \| (yes|no) \|$", text, re.MULTILINE)]


def test_documented_verdicts() -> None:
    rows = documented_pairs()
    assert len(rows) > 25
    assert [row for row in rows if equal(row[0], row[1]) is not (row[2] == "yes")] == []


def test_documented_verdicts_of_math_verify() -> None:
    from math_verify import parse, verify

    verdicts = {row[0]: verify(parse(f"${row[1]}$"), parse(f"${row[0]}$")) for row in documented_pairs()}
    assert verdicts == {row[0]: row[3] == "yes" for row in documented_pairs()}


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("10:30 am", "10:30 pm", False),
        ("10:30 a.m.", "10:30", True),
        ("10:30 AM", "10:30 a.m.", True),
        ("10:30 pm", "11:30 pm", False),
    ],
)
def test_times_of_day(answer: str, gold: str, expected: bool) -> None:
    assert equal(answer, gold) is expected
    assert equal(gold, answer) is expected
