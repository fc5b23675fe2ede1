"""`StudyCall`: the arguments of the command `study`, which a study keeps in its folder as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from cyclopts import Parameter

from dpc_interp.analysis.options import Options
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.grid import ProblemSample
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.study.control_runs import ControlSizes
from dpc_interp.study.evaluated import folder_name
from dpc_interp.study.study import Study, study
from dpc_interp.tasks.registry import has_validation, load_problems

SETTINGS = "study.yaml"
"""The file in the folder of a study that holds the arguments of its command."""
Flat = Parameter(name="*")
"""Every field of a dataclass is an option of its own name."""


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded; see `load_model`.

    Attributes:
        device: cpu, cuda, cuda:1, mps; default: a GPU if there is one.
        dtype: of the weights, such as bfloat16.
        backend: hooked or bridge; default: hooked where it can be.
    """

    device: str | None = None
    dtype: str = "float32"
    backend: Literal["hooked", "bridge"] | None = None


@dataclass(frozen=True, kw_only=True)
class StudyCall:
    """Arguments of a study other than the model.

    Attributes:
        prompts: adapters, by name or folder; several tuning seeds, or no claim can be judged.
        problems: tasks, by name or file.
        validation: files whose problems calibrate, one for each task, or one for each task without a validation split,
            such as a file; default: the validation split, or 30% of the problems, at most `n_validation`.
        n: problems of each task that are reported.
        n_validation: problems of each task that calibrate, at most.
        load: how the model is loaded.
        options: what is computed.
        run: how it is run; `out` is the folder of the study.
        sizes: of the controls.
    """

    prompts: list[str]
    problems: list[str]
    validation: list[str] | None = None
    n: int = ProblemSample.n
    n_validation: int = ProblemSample.n_validation
    load: Annotated[LoadOptions, Flat] = field(default_factory=LoadOptions)
    options: Annotated[Options, Flat] = field(default_factory=Options)
    run: Annotated[RunConfig, Flat] = field(default_factory=RunConfig)
    sizes: Annotated[ControlSizes, Flat] = field(default_factory=ControlSizes)

    def folder(self, model: str) -> Path:
        """The folder of the study of a model."""
        return Path(self.run.out or Path("studies") / folder_name(Path(model).name))

    def open(self, model: str) -> Study:
        """The study of a model; nothing has been computed yet."""
        files = [file for file in self.problems if not has_validation(file)]
        if self.validation and len(self.validation) == len(self.problems):
            files = self.problems
        elif self.validation and len(self.validation) != len(files):
            raise DPCInterpError(
                f"--validation has {len(self.validation)} files for {len(self.problems)} tasks; give one for each, or "
                f"one for each of the {len(files)} tasks without a validation split"
            )
        held_out = {
            load_problems(file, n=1)[0].task: load_problems(calibrates, n=self.n_validation)
            for file, calibrates in zip(files, self.validation or (), strict=False)
        }
        return study(
            model,
            self.problems,
            self.prompts,
            load_options=asdict(self.load),
            sample=ProblemSample(self.n, self.n_validation, validation=held_out),
            options=self.options,
            run=replace(self.run, out=self.folder(model) / "runs"),
            sizes=self.sizes,
        )

    def record(self, model: str) -> dict[str, Any]:
        """Every argument that has a value, defaults too, as YAML holds it; files by their full path."""
        record = {"model": _full_path(model)} | asdict(self)
        for nested in ("load", "options", "run", "sizes"):
            record |= record.pop(nested)
        record |= {"prompts": list(map(_full_path, self.prompts)), "problems": list(map(_full_path, self.problems))}
        record |= {"validation": self.validation and list(map(_full_path, self.validation))}
        plain: dict[str, Any] = _plain(record | {"out": self.folder(model)})
        return plain

    def check_resumes(self, model: str, file: Path) -> None:
        """Raise unless the arguments that results depend on are those in the file of an earlier run."""
        same = (
            "model",
            "prompts",
            "problems",
            "validation",
            "n",
            "n_validation",
            "dtype",
            "backend",
            *asdict(self.options),
        )
        earlier, now = yaml.safe_load(file.read_text(encoding="utf-8")), self.record(model)
        changed = [name for name in same if earlier.get(name) != now.get(name)]
        if changed:
            raise DPCInterpError(
                f"{file.parent} was given another {', '.join(changed)} before; give another --out, or the same"
            )

    def write(self, model: str, file: Path) -> None:
        """Write the arguments as YAML that `--config` reads."""
        text = f"# dpc-interp {version('dpc_interp')}; again: dpc-interp study --config {file}\n"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            text + yaml.safe_dump(self.record(model), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )


def _full_path(name: str) -> str:
    """The full path of a file or folder; a name unchanged."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _plain(value: Any) -> Any:
    """The value as YAML holds it."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items() if one is not None}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
