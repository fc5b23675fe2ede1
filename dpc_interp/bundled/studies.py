"""The studies of the bundled models, from which the figures and verdicts of this repository come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpc_interp.bundled.recipes import recipes_of
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.execution.digest import digest
from dpc_interp.prompts.soft_prompt import bundled_prompts, load_prompt
from dpc_interp.study.control_runs import ControlSizes
from dpc_interp.study.study import Study, study


@dataclass(frozen=True)
class BundledStudy:
    """Which study of a bundled model.

    Attributes:
        model: name of a model with bundled prompts.
        tasks: names of tasks; None: all that the model has prompts for.
        seeds: tuning seeds of each task, the first ones; None: all.
        n: test problems of each task (seed 0).
        n_validation: problems of each task that calibrate and select (seed 0).
        batch_size: questions decoded together.
        runs: parent of the folder of finished stages. That folder is named by the sizes and a digest of the code, so
            that a stage that other code computed is never read.
    """

    model: str = "reasoner"
    tasks: Sequence[str] | None = None
    seeds: int | None = None
    n: int = 500
    n_validation: int = 150
    batch_size: int = 256
    runs: Path = Path("runs")

    def open(self, sizes: ControlSizes | None = None) -> Study:
        """The study, whose prompts are evaluated side by side, one process a core.

        Args:
            sizes: of the controls.

        Raises:
            DPCInterpError: a model or a task without prompts.
        """
        recipes = recipes_of(self.model)
        tasks = list(self.tasks or recipes)
        prompts = {}
        for task in tasks:
            if task not in recipes:
                raise UnknownNameError(f"task of {self.model}", task, list(recipes))
            names = bundled_prompts(f"{self.model}/{task}/")[: self.seeds]
            if not names:
                raise DPCInterpError(f"no prompt for {self.model}/{task} yet; run make prompts MODEL={self.model}")
            prompts[task] = [load_prompt(name) for name in names]
        return study(
            self.model,
            [recipes[task].load("test", self.n, seed=0) for task in tasks],
            prompts,
            self.folder,
            validation={task: recipes[task].load("validation", self.n_validation, seed=0) for task in tasks},
            engine="processes",
            batch_size=self.batch_size,
            sizes=sizes,
        )

    @property
    def folder(self) -> Path:
        """The folder of finished stages."""
        package = Path(__file__).parent.parent
        code = digest(*(file.read_bytes() for file in sorted(package.rglob("*.py"))))
        return self.runs / f"{self.model}-{self.n}-{self.n_validation}-{code}"
