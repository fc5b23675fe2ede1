"""A case as the JSON and the bytes that `view.js` shows."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Any

from dpc_interp.analysis.layers import layer_range
from dpc_interp.views.case import Case
from dpc_interp.views.payload import MAX_ENTRIES, encode_flow

WORD = re.compile(r"\s+|[^\s\w]|\w+")


def describe_case(case: Case, *, max_entries: int = MAX_ENTRIES) -> tuple[dict[str, Any], bytes]:
    """What the view of a case shows.

    Args:
        case: the instance.
        max_entries: see `encode_flow`.

    Returns:
        The object `case` of `view.js`, and its data.
    """
    values, segments, run = case.map.values.detach().float().cpu().numpy(), case.map.segments, case.run
    groups = {"shallow": case.shallow, "deep": case.deep, "all": tuple(range(len(values)))}
    maps = [*values, *(values[list(layers)].mean(axis=0) for layers in groups.values())]
    code, data = encode_flow(maps, max_entries=max_entries)
    names = (case.model, case.prompt, run.problem.task, run.problem.id)
    info: dict[str, Any] = {
        "title": " · ".join(name for name in names if name),
        "instance": run.problem.id,
        "tokens": case.map.tokens,
        "segments": segments.spans(),
        "steps": segments.steps,
        "late": segments.late,
        "n_layers": len(values),
        "groups": {name: layer_range(layers) for name, layers in groups.items()},
        "flow": code.as_dict(),
        "peak_token": int(case.statistics["peak_token"]) if len(case.statistics) else None,
        "sinks": case.sinks,
        "affected": case.affected,
        "first_token": case.affected[0] if case.affected else segments.late[0],
        "answer": _answer(run.answer),
        "expected": run.problem.answer,
        "correct": run.correct,
        "trigger": _trigger_text(case),
        "legend": _legend(case),
        "note": _note(code.as_dict()),
        "changes": None,
    }
    if case.corrupted is not None:
        info |= {
            "changes": word_changes(run.text, case.corrupted.text),
            "corruption": "Corrupted" if case.fires is not False else "Corrupted, although the trigger does not fire",
            "corrupted_answer": _answer(case.corrupted.answer),
            "corrupted_correct": case.corrupted.correct,
        }
    return info, data


def word_changes(before: str, after: str) -> list[dict[str, str]]:
    """Two texts aligned by words.

    Args:
        before: the first text.
        after: the second one.

    Returns:
        Parts in order: `same`, a text of both, or `before` and `after`, what stands in its place in each.

    Example:
        >>> word_changes("so 3 pens", "so 4 pens")
        [{'same': 'so '}, {'before': '3', 'after': '4'}, {'same': ' pens'}]
    """
    first, second = WORD.findall(before), WORD.findall(after)
    parts = []
    for tag, a, b, c, d in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        same = {"same": "".join(first[a:b])}
        parts.append(same if tag == "equal" else {"before": "".join(first[a:b]), "after": "".join(second[c:d])})
    return parts


def _answer(answer: str | None) -> str:
    return "nothing that can be read" if answer is None else answer


def _trigger_text(case: Case) -> str:
    """How the trigger is read off the marked tokens."""
    if not len(case.statistics):
        return ""
    start, stop = case.map.segments.late
    if case.options.target == "gold":
        late = "measured on the written rationale, whose tokens are not shown."
    else:
        late = (
            f"the prompt affects {len(case.affected)} of {stop - start} late tokens (mean flow from it above beta = "
            f"{case.beta:.3g}, layers {layer_range(case.deep)})."
        )
    text = (
        f"Accumulation token: virtual token {int(case.statistics['peak_token'])}, "
        f"{case.statistics['peak_ratio']:.2f} times the mean (layers {layer_range(case.shallow)}). "
        f"Late share R = {case.statistics['late_share']:.3f}: {late}"
    )
    if case.rule is None:
        return text
    value = float(case.statistics[case.rule.statistic])
    sign, fires = (">", "fires") if case.fires else ("≤", "does not fire")
    return f"{text} The trigger {fires}: {case.rule.statistic} {value:.3f} {sign} {case.rule.threshold:.3f}."


def _legend(case: Case) -> str:
    marks = "Bar and colour: the square root of the flow, relative to the largest one that is shown."
    if len(case.statistics):
        marks += " ▲ accumulation token; ⌄ attention sink; dotted line above: late token that the prompt affects."
    return f"{marks} Arrow keys move by tokens, up and down by segments."


def _note(code: dict[str, float]) -> str:
    error = f"Values are exact to {100 * code['relative_error']:.2g}%, row shares to twice that."
    if code["largest_dropped"] == 0:
        return error
    return (
        f"{error} Of each layer the largest flow out of each token and the largest shares of a row are kept, "
        f"{100 * code['kept']:.1f}% of all flow; none that is left out is above "
        f"{100 * code['largest_dropped']:.2g}% of its row."
    )
