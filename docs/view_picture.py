"""Draw docs/view.png, the view of one instance of the bundled reasoner: `python docs/view_picture.py` (chromium)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import dpc_interp as dpc

OUT = Path(__file__).with_name("view.png")


def main() -> None:
    """Choose the answer that the prompt affects most among those that corruption changes, and photograph its page."""
    model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
    runs = dpc.drop_empty_rationales(model, dpc.generate(model, dpc.load_problems("story", n=60), prompt))
    analysis = dpc.analyse(model, runs, prompt)
    plans = dpc.plan_corruption(analysis, gamma=dpc.Options.gamma)
    corrupted = dpc.generate(model, [run.problem for run in runs], prompt, plans=plans)
    share = dpc.trigger_statistics(analysis).set_index("instance")["late_share"]
    changed = [k for k, run in enumerate(runs) if run.text != corrupted[k].text] or list(range(len(runs)))
    chosen = max(changed, key=lambda k: share[runs[k].problem.id])
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = dpc.view(model, runs[chosen], prompt, corrupted=corrupted[chosen]).save(Path(folder) / "case.html")
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1100, "height": 620}, color_scheme="light")
        page.goto(file.as_uri())
        page.locator(".token[aria-selected=true]").wait_for()
        page.locator(".dpc-view").screenshot(path=OUT)
        chromium.close()


if __name__ == "__main__":
    main()
