"""A browser without network, and a case of the bundled reasoner."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dpc_interp as dpc
from dpc_interp.views.case import Case

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium; apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[[Path], Any]]:
    """Open a file with the network off; afterwards, fail on any message or request but that of the file."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    messages: list[str] = []
    requests: list[str] = []

    def open_file(file: Path) -> Any:
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_file
    context.close()
    assert messages == []
    assert all(url.startswith("file://") for url in requests)
    assert len(requests) == 1


@pytest.fixture(scope="module")
def shown() -> Case:
    """An answer of three steps and more that the prompt affects late, with a trigger that fires."""
    model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
    runs = dpc.generate(model, dpc.load_problems("story", n=40), prompt, progress=False)
    analysis = dpc.analyse(model, runs, prompt, progress=False)
    share = dpc.trigger_statistics(analysis).set_index("instance")["late_share"]
    run = next(run for run in runs if run.problem.n_steps >= 3 and 0 < share[run.problem.id] < 1)
    return dpc.case(model, run, prompt, rule=dpc.TriggerRule("late_share", 0.0))
