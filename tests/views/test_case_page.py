"""What the page of a case says about the instance."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dpc_interp.views.case import Case
from dpc_interp.views.case_page import describe_case, word_changes


def test_the_trigger_can_be_read_off(shown: Case) -> None:
    info, _ = describe_case(shown)
    start, stop = shown.map.segments.late
    share = shown.statistics["late_share"]
    assert f"affects {len(shown.affected)} of {stop - start} late tokens" in info["trigger"]
    assert f"R = {share:.3f}" in info["trigger"]
    assert f"The trigger fires: late_share {share:.3f} > 0.000." in info["trigger"]
    assert f"virtual token {info['peak_token']}," in info["trigger"]
    quiet, _ = describe_case(replace(shown, rule=replace(shown.rule, threshold=2.0)))
    assert f"does not fire: late_share {share:.3f} ≤ 2.000." in quiet["trigger"]
    assert "although the trigger does not fire" in quiet["corruption"]


def test_groups_are_the_layers_of_the_options(shown: Case) -> None:
    info, _ = describe_case(replace(shown, options=replace(shown.options, shallow=[1], deep=[3, 5])))
    assert info["groups"] == {"shallow": "1", "deep": "3,5", "all": "0-5"}
    json.dumps(info, allow_nan=False)


def test_the_note_says_what_is_left_out(shown: Case) -> None:
    assert "left out" not in describe_case(shown)[0]["note"]
    info, _ = describe_case(shown, max_entries=3000)
    dropped, kept = info["flow"]["largest_dropped"], info["flow"]["kept"]
    assert 0 < dropped < 1
    assert f"{100 * kept:.1f}% of all flow; none that is left out is above {100 * dropped:.2g}%" in info["note"]


@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("", "a b"), ("so 3 pens\n#### 3", "so 13 pens.\n#### 13"), ("a<b>c", "a <b> c"), ("x y z", "x y z")],
)
def test_changes_give_both_texts(before: str, after: str) -> None:
    parts = word_changes(before, after)
    assert "".join(part.get("same", part.get("before", "")) for part in parts) == before
    assert "".join(part.get("same", part.get("after", "")) for part in parts) == after
    assert all("same" in part for part in parts) == (before == after)
