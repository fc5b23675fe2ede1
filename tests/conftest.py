"""Set-up shared by all tests: offline, one thread, seeded, and the package's type hints checked as it runs."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
os.environ["OMP_NUM_THREADS"] = "1"  # for child processes too, notebook kernels among them

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxtyping
import matplotlib
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook
from torch.profiler import ProfilerActivity, profile

# What is imported while the hook loads the package is compiled anew: libraries come first, which saves 10 s a process
for library in ("beartype", "peft", "sklearn.metrics", "statsmodels.api", "sympy", "transformer_lens"):
    import_module(library)

# Before the first import of the package; an int is accepted as a float, as by type checkers.
install_import_hook("dpc_interp", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpc_interp import Problem, SoftPrompt, Transcript
    from dpc_interp.models.hooked import HookedModel
    from dpc_interp.models.lens import HookedTransformer

matplotlib.use("Agg")  # not by MPLBACKEND, which a notebook's kernel would take over
torch.set_num_threads(1)  # pytest-xdist fills the cores; sums do not depend on their number


SLOW_FILES = ("test_notebooks.py", "test_commands.py", "test_smollm2.py", "test_packaging.py")
"""Files of minutes. They run first, or one worker would be left with them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first; pytest-xdist hands out files in this order."""
    items.sort(key=lambda item: item.path.name not in SLOW_FILES)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Give every test the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


# Tiny random models that read the reasoner's vocabulary. Those shared by a session are never written to.
N_VIRTUAL, D_MODEL = 5, 16
LLAMA = {
    "act_fn": "silu",
    "normalization_type": "RMS",
    "final_rms": True,
    "gated_mlp": True,
    "positional_embedding_type": "rotary",
    "rotary_dim": 4,
    "rotary_adjacent_pairs": False,
}
KINDS: dict[str, dict[str, Any]] = {
    "gqa": {**LLAMA, "n_layers": 3, "n_key_value_heads": 2},
    "plain": {**LLAMA, "n_layers": 2},
    "learned": {"n_layers": 2, "act_fn": "gelu", "normalization_type": "LN", "positional_embedding_type": "standard"},
}
BRIDGED: dict[str, tuple[str, dict[str, Any]]] = {  # where there is no HookedTransformer: the family and its shape
    "gqa": ("llama", {"num_hidden_layers": 3, "num_key_value_heads": 2}),
    "plain": ("llama", {"num_hidden_layers": 2, "num_key_value_heads": 4}),
    "learned": ("gpt2", {"num_hidden_layers": 2, "activation_function": "gelu"}),
}


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    from dpc_interp.models.loading import BUNDLED

    return AutoTokenizer.from_pretrained(BUNDLED["reasoner"], local_files_only=True)


@pytest.fixture(scope="session")
def needs_hooked() -> None:
    pytest.importorskip("transformer_lens.HookedTransformer", reason="this TransformerLens has no HookedTransformer")


@pytest.fixture(scope="session")
def device() -> str:
    """The device of the tests that are marked `gpu`: the environment variable DPC_INTERP_DEVICE, or the CPU."""
    name = os.environ.get("DPC_INTERP_DEVICE", "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU here")
    return name


@pytest.fixture(params=["hooked", "bridge"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that this TransformerLens has."""
    if request.param == "hooked":
        request.getfixturevalue("needs_hooked")
    return request.param


@pytest.fixture(scope="session")
def build(tokenizer: PreTrainedTokenizerBase) -> Callable[..., HookedModel]:
    """Make a frozen random model: of grouped queries, of plain heads, or with learned positions and LayerNorm.

    A HookedTransformer, or a bridge if this TransformerLens has only bridges.
    """
    from dpc_interp.models.lens import HAS_HOOKED

    if not HAS_HOOKED:
        return partial(make_bridge, tokenizer)
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    def make(kind: str = "gqa", *, seed: int = 0, stop_logit: float = 0.0, **changes: Any) -> HookedTransformer:
        options = {"d_model": D_MODEL, "n_heads": 4, "d_head": 4, "d_mlp": 32, "n_ctx": 224, "d_vocab": len(tokenizer)}
        model = HookedTransformer(
            HookedTransformerConfig(**(options | KINDS[kind] | {"device": "cpu"} | changes)), tokenizer=tokenizer
        )
        model.tokenizer = tokenizer  # instead of a copy that TransformerLens loads from the same files
        generator = torch.Generator().manual_seed(seed)
        for name, weight in model.named_parameters():
            centre = float(name.endswith("w"))  # the gains of the norms
            spread = 1.0 if "W_E" in name else 0.3 if "W_" in name else 0.1
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.data = (centre + spread * noise).to(weight)
        model.unembed.b_U.data[tokenizer.eos_token_id] = stop_logit
        return model.eval().requires_grad_(False)

    return make


def make_bridge(
    tokenizer: PreTrainedTokenizerBase,
    kind: str = "gqa",
    *,
    seed: int = 0,
    stop_logit: float = 0.0,
    dtype: torch.dtype = torch.float32,
    d_model: int = D_MODEL,
    n_ctx: int = 224,
    model_name: str = "tiny",
) -> TransformerBridge:
    """A bridge over a random model of the same shape and spread as the HookedTransformer of its kind."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoConfig, AutoModelForCausalLM

    family, shape = BRIDGED[kind]
    shape |= {"n_inner": 32} if family == "gpt2" else {"intermediate_size": 32}
    shape |= {"hidden_size": d_model, "num_attention_heads": 4, "max_position_embeddings": n_ctx}
    shape |= {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **shape, tie_word_embeddings=False)
    hf_model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(21 + seed)
    with torch.no_grad():
        for name, weight in hf_model.named_parameters():
            gain = weight.ndim == 1 and name.endswith("weight")
            spread = 1.0 if "embed_tokens" in name or "wte" in name else 0.3 if weight.ndim > 1 else 0.1
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.copy_(float(gain) + spread * noise)
        if stop_logit:
            hf_model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(tokenizer)))
            hf_model.lm_head.bias[tokenizer.eos_token_id] = stop_logit
    hf_model = hf_model.to(dtype).eval().requires_grad_(False)
    model = TransformerBridge.boot_transformers(
        model_name, hf_model=hf_model, tokenizer=tokenizer, device="cpu", dtype=dtype
    )
    model._tokenizer = tokenizer  # as in `load_model`; the bridge's tokenizer adds BOS
    return model.eval().requires_grad_(False)


# Tiny random models in Hugging Face's layout, of every family that loads.
TINY: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "head_dim": 4, "sliding_window": 5},
    "qwen2": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "gpt2": {},
}


@pytest.fixture(scope="session")
def tiny(tokenizer: PreTrainedTokenizerBase) -> Callable[..., Path]:
    """Save a random model of a family, with its tokenizer; norms and biases are far from ones and zeros."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def save(family: str, folder: Path, **changes: Any) -> Path:
        shape = {
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 224,
            "initializer_range": 0.3,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        }
        shape |= {"n_inner": 24} if family == "gpt2" else {"intermediate_size": 32}
        options = shape | TINY.get(family, {}) | changes
        torch.manual_seed(3)
        hf_model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **options))
        with torch.no_grad():
            for weight in hf_model.parameters():
                if weight.ndim == 1:
                    weight.add_(0.3 * torch.randn_like(weight))
        hf_model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def hugging_face(tokenizer: PreTrainedTokenizerBase) -> Callable[..., PreTrainedModel]:
    """Make a tiny random Hugging Face model: llama (GQA), mistral (sliding window), qwen2 (biases, tied) or gpt2.

    `rotary_base` and `dtype` can be given; the weights are the same for the same family.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(family: str, *, rotary_base: float = 10000.0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        options: dict[str, Any] = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2}
        options |= {"pad_token_id": 0, "initializer_range": 0.3}
        if family == "gpt2":
            options |= {"n_embd": D_MODEL, "n_layer": 2, "n_head": 4, "n_positions": 224, "n_inner": 32}
        else:
            options |= {"hidden_size": D_MODEL, "intermediate_size": 32, "num_hidden_layers": 2}
            options |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 224}
            options |= {"rope_parameters": {"rope_type": "default", "rope_theta": rotary_base}}
        if family == "mistral":
            options |= {"sliding_window": 8}
        if family == "qwen2":
            options |= {"tie_word_embeddings": True}
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **options))
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 1:  # norms and biases, which start at one and zero
                    weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
                if name == "lm_head.weight":  # some texts stop early
                    weight[tokenizer.eos_token_id] *= 2.0
        return model.to(dtype).eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def bridge(tokenizer: PreTrainedTokenizerBase) -> Callable[[PreTrainedModel], TransformerBridge]:
    """Wrap a Hugging Face model, which then belongs to the bridge."""
    from transformer_lens.model_bridge import TransformerBridge

    def wrap(hf_model: PreTrainedModel) -> TransformerBridge:
        family = hf_model.config.model_type
        return TransformerBridge.boot_transformers(
            family, hf_model=hf_model, tokenizer=tokenizer, device="cpu", dtype=hf_model.dtype
        )

    return wrap


@pytest.fixture(scope="session")
def hooked(tokenizer: PreTrainedTokenizerBase, needs_hooked: None) -> Callable[[PreTrainedModel], HookedTransformer]:
    """The HookedTransformer of a Hugging Face model, by the weight conversions of TransformerLens."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained import weight_conversions

    def make(hf_model: PreTrainedModel) -> HookedTransformer:
        theirs, family = hf_model.config, hf_model.config.model_type
        options: dict[str, Any] = {"d_model": D_MODEL, "n_heads": 4, "d_head": 4, "d_mlp": 32, "n_ctx": 224}
        options |= {"n_layers": 2, "d_vocab": len(tokenizer), "dtype": hf_model.dtype, "device": "cpu"}
        if family == "gpt2":
            options |= {"act_fn": "gelu_new", "normalization_type": "LN", "eps": theirs.layer_norm_epsilon}
        else:
            options |= LLAMA | {"n_key_value_heads": 2, "eps": theirs.rms_norm_eps}
            options |= {"rotary_base": theirs.rope_parameters["rope_theta"]}
        if family == "mistral":
            options |= {"use_local_attn": True, "attn_types": ["local"] * 2, "window_size": theirs.sliding_window}
        model = HookedTransformer(HookedTransformerConfig(**options), tokenizer=tokenizer)
        model.tokenizer = tokenizer
        weights = getattr(weight_conversions, f"convert_{family}_weights")(hf_model, model.cfg)
        model.load_state_dict(weights, strict=False)
        return model.to(hf_model.dtype).eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def model(build: Callable[..., HookedModel]) -> HookedModel:
    """The grouped-query model, with a stop token likely enough that its texts end at different lengths."""
    return build("gqa", stop_logit=1.0)


@pytest.fixture(scope="session", params=KINDS)
def each_model(request: pytest.FixtureRequest, build: Callable[..., HookedModel]) -> HookedModel:
    return build(request.param)


@pytest.fixture(scope="session", params=["gqa", "plain", "learned", "llama bridge", "gpt2 bridge"])
def any_model(
    request: pytest.FixtureRequest, build: Callable[..., HookedModel], hugging_face: Callable, bridge: Callable
) -> HookedModel:
    """Models of both backends."""
    family, _, is_bridge = request.param.partition(" ")
    return bridge(hugging_face(family)) if is_bridge else build(family)


@pytest.fixture(scope="session")
def prompt() -> SoftPrompt:
    from dpc_interp import SoftPrompt

    return SoftPrompt(0.5 * torch.randn(N_VIRTUAL, D_MODEL, generator=torch.Generator().manual_seed(5)), "random")


@pytest.fixture(scope="session")
def problems() -> list[Problem]:
    """Short questions of different lengths."""
    from dpc_interp import load_problems

    return load_problems("story", n=20, max_steps=2)


@pytest.fixture(scope="session")
def written(tokenizer: PreTrainedTokenizerBase) -> Callable[..., Transcript]:
    """Make the transcript of a text as if a model had written it."""
    from dpc_interp import Problem
    from dpc_interp.generation.transcript import Transcript
    from dpc_interp.tasks.answers import extract_answer, is_correct

    def write(text: str, *, gold: str = "17", name: str = "story-0", stopped: bool = True) -> Transcript:
        problem = Problem("story", "Tom has 9 apples. How many apples does Tom have now?", text, gold, 2, name)
        question = [tokenizer.bos_token_id, *tokenizer(problem.question + "\n", add_special_tokens=False).input_ids]
        ids = tokenizer(text, add_special_tokens=False).input_ids + [tokenizer.eos_token_id] * stopped
        answer = extract_answer(text)
        correct = is_correct(answer, gold)
        return Transcript(problem, torch.tensor(question), torch.tensor(ids, dtype=torch.long), text, answer, correct)

    return write


@pytest.fixture
def cut_off() -> Callable[[Path], list[str]]:
    """The pictures of a folder in which something lies at an edge."""
    from PIL import Image

    def edges(file: Path) -> np.ndarray:
        picture = np.asarray(Image.open(file).convert("RGB"))
        return np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])

    def find(folder: Path) -> list[str]:
        pictures = sorted(folder.rglob("*.png"))
        assert pictures
        return [str(file.relative_to(folder)) for file in pictures if (edges(file) < 255).any()]

    return find


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Read the files of a run folder, except the timings, by their paths within it."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file() and path.name != "timings.jsonl")
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return read


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Rows and positions of each pass with a cache."""
    from dpc_interp.models.hooked import CachedDecoding

    shapes: list[tuple[int, ...]] = []
    call = CachedDecoding.__call__

    def count(self: CachedDecoding, tokens: Tensor, *mask: Tensor) -> Tensor:
        shapes.append(tuple(tokens.shape))
        return call(self, tokens, *mask)

    monkeypatch.setattr(CachedDecoding, "__call__", count)
    return shapes


@pytest.fixture
def unchanged() -> Callable[[HookedModel], AbstractContextManager[None]]:
    """A context after which the model must be what it was: logits and weights bit for bit, gradients, flags, no hook
    left.
    """

    @contextmanager
    def watch(model: HookedModel) -> Iterator[None]:
        tokens = torch.arange(1, 13).view(2, 6)
        logits = model(tokens).detach()
        weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        flags = {name: (weight.requires_grad, weight.grad) for name, weight in model.named_parameters()}
        yield
        assert torch.equal(model(tokens), logits)
        for name, weight in model.named_parameters():
            assert torch.equal(weight, weights[name]), name
            assert (weight.requires_grad, weight.grad) == flags[name], name
        for name, point in model.hook_dict.items():
            assert not point.fwd_hooks, name
            assert not point.bwd_hooks, name
            assert not point._forward_hooks, name
        assert model.context_level == 0

    return watch


@pytest.fixture
def untyped() -> Iterator[None]:
    """The package as a user runs it, without the type checks of the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def peak_bytes(work: Callable[[], object]) -> int:
    """Peak bytes of tensors on the CPU above those held before, from every allocation."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        work()
    held = peak = 0
    events = measured.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@contextmanager
def kept_patterns(model: HookedModel, kept: bool = True) -> Iterator[None]:
    """A hook on every pattern, if they are to be kept."""
    hook = (lambda name: name.endswith("attn.hook_pattern"), lambda pattern, hook: None)
    with model.hooks(fwd_hooks=[hook] if kept else []):
        yield


@pytest.fixture
def peak_and_estimate(untyped: None) -> Callable[..., tuple[int, int]]:
    """Analyse random tokens after 5 virtual tokens; bytes at the peak, measured and as `plan_memory` has it."""
    from dpc_interp.analysis.saliency import saliency_pass
    from dpc_interp.execution.memory_plan import estimate_bytes

    def measure(
        model: HookedModel, batch_size: int, length: int, n_predicted: int, checkpointing: bool, *, kept: bool = False
    ) -> tuple[int, int]:
        generator = torch.Generator().manual_seed(1)
        vectors = 0.1 * torch.randn(5, model.cfg.d_model, generator=generator)
        rows = [torch.randint(3, 200, (length - 5,), generator=generator) for _ in range(batch_size)]
        n_question = [length - 5 - n_predicted] * batch_size

        def analyse() -> None:
            saliency_pass(model, rows, n_question, vectors, lambda blocks: None, gradient_checkpointing=checkpointing)

        with kept_patterns(model, kept):
            return peak_bytes(analyse), estimate_bytes(model, batch_size, length, n_predicted, checkpointing)

    return measure
