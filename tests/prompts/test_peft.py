"""Adapters in both directions: PEFT and this package give the same logits and greedy text for the same adapter.

PEFT pads between prompt and question, this package before the prompt; so PEFT answers one question at a time.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    CPTConfig,
    MultitaskPromptTuningConfig,
    PeftConfig,
    PeftModel,
    PromptEncoderConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dpc_interp import DPCInterpError, Problem, SoftPrompt, generate, load_model, load_problems, load_prompt, prompted
from dpc_interp.models.encoding import encode_question
from dpc_interp.models.hooked import HookedModel

pytestmark = pytest.mark.filterwarnings("ignore:Position ids are not supported")  # PEFT computes its own for P | Q
N_VIRTUAL, N_NEW = 4, 10
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def llama(n_vocab: int) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=n_vocab,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=224,
        initializer_range=0.4,
        **SPECIAL,
    )
    return LlamaForCausalLM(config)


def gpt2(n_vocab: int) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=n_vocab, n_positions=224, n_embd=16, n_layer=2, n_head=4, initializer_range=0.4, **SPECIAL
    )
    return GPT2LMHeadModel(config)


@dataclass(frozen=True)
class Pair:
    """One model as a Hugging Face folder and as a hooked model, with the adapter that PEFT trained for it."""

    folder: Path
    model: HookedModel
    trained: Path
    losses: tuple[float, ...]

    def hf_model(self) -> PreTrainedModel:
        family = {"llama": LlamaForCausalLM, "gpt2": GPT2LMHeadModel}[self.folder.name]
        return family.from_pretrained(self.folder, local_files_only=True).eval()

    def in_peft(self, adapter: Path) -> PeftModel:
        return PeftModel.from_pretrained(self.hf_model(), adapter).eval()


def train_in_peft(pair: Pair, texts: list[torch.Tensor]) -> list[float]:
    """Run a few training steps of PEFT's prompt tuning and save the adapter with PEFT; the losses."""
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=N_VIRTUAL)
    theirs = get_peft_model(pair.hf_model(), config).train()
    optimizer = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=0.3)
    losses = []
    for _ in range(4):
        loss = torch.stack([theirs(input_ids=text[None], labels=text[None]).loss for text in texts]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    theirs.save_pretrained(pair.trained)
    return losses


@pytest.fixture(scope="module")
def questions() -> list[Problem]:
    return load_problems("story", n=50)


@pytest.fixture(
    scope="module", params=list(product([llama, gpt2], ["hooked", "bridge"])), ids=lambda p: f"{p[0].__name__}, {p[1]}"
)
def pair(
    request: pytest.FixtureRequest,
    tokenizer: PreTrainedTokenizerBase,
    questions: list[Problem],
    tmp_path_factory: pytest.TempPathFactory,
) -> Pair:
    torch.manual_seed(3)
    make, backend = request.param
    if backend == "hooked":
        request.getfixturevalue("needs_hooked")
    folder = tmp_path_factory.mktemp("models") / make.__name__
    make(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = load_model(str(folder), device="cpu", backend=backend)
    bare = Pair(folder, model, tmp_path_factory.mktemp("trained"), ())
    texts = [encode_question(bare.model, problem.question) for problem in questions[:4]]
    losses = train_in_peft(bare, texts)
    return Pair(bare.folder, bare.model, bare.trained, tuple(losses))


@torch.no_grad()
def check_same(model: HookedModel, prompt: SoftPrompt, theirs: PeftModel, questions: list[Problem]) -> None:
    """Check that logits and greedy text are equal, question by question."""
    runs = generate(model, questions, prompt, max_new_tokens=N_NEW, progress=False)
    assert len({len(run.question_tokens) for run in runs}) > 5  # the batch is padded
    assert len({run.text for run in runs}) > 5
    for run in runs:
        question = run.question_tokens[None]
        with prompted(model, prompt) as forward:
            torch.testing.assert_close(forward(question), theirs(input_ids=question).logits, rtol=1e-4, atol=1e-4)
        written = theirs.generate(
            input_ids=question, attention_mask=torch.ones_like(question), max_new_tokens=N_NEW, do_sample=False
        )
        assert run.generated_tokens.tolist() == written[0, question.shape[1] :].tolist()


def test_an_adapter_trained_by_peft_works_here(pair: Pair, questions: list[Problem]) -> None:
    prompt = load_prompt(pair.trained, pair.model)
    assert pair.losses[-1] < pair.losses[0]
    assert (prompt.n_virtual, prompt.base_model) == (N_VIRTUAL, str(pair.folder))
    check_same(pair.model, prompt, pair.in_peft(pair.trained), questions)


def test_an_adapter_written_here_works_in_peft(pair: Pair, questions: list[Problem], tmp_path: Path) -> None:
    prompt = SoftPrompt(torch.randn(7, 16), "mine")
    prompt.save_pretrained(tmp_path, base_model=str(pair.folder))
    theirs = pair.in_peft(tmp_path)
    assert torch.equal(theirs.get_prompt_embedding_to_save("default"), prompt.vectors)
    check_same(pair.model, prompt, theirs, questions)


def test_the_prompt_matters(pair: Pair, questions: list[Problem]) -> None:
    """The bare model writes other texts, so the tests above compare the effect of the prompt."""
    prompt = load_prompt(pair.trained)
    with_prompt = generate(pair.model, questions, prompt, max_new_tokens=N_NEW, progress=False)
    bare = generate(pair.model, questions, max_new_tokens=N_NEW, progress=False)
    assert sum(a.text != b.text for a, b in zip(with_prompt, bare, strict=True)) > 25


@torch.no_grad()
def test_order_is_prompt_then_bos_and_question(pair: Pair, questions: list[Problem]) -> None:
    """The input of the first layer is the same here and in PEFT, bit for bit."""
    prompt, theirs = load_prompt(pair.trained), pair.in_peft(pair.trained)
    question = encode_question(pair.model, questions[0].question)[None]
    read: list[torch.Tensor] = []
    theirs.base_model.register_forward_pre_hook(
        lambda _, args, options: read.append(options["inputs_embeds"]), with_kwargs=True
    )
    theirs(input_ids=question)

    def keep(embed: torch.Tensor, hook: object) -> torch.Tensor:
        read.append(embed)
        return embed

    with prompted(pair.model, prompt, keep) as forward:
        forward(question)
    there, here = read
    assert question[0, 0] == SPECIAL["bos_token_id"]
    assert torch.equal(here, torch.cat([prompt.vectors, pair.model.W_E[question[0]]])[None])
    assert torch.equal(there, here)


def test_peft_finds_the_base_model_of_an_adapter_written_here(pair: Pair, tmp_path: Path) -> None:
    """Also after the adapter was loaded and saved again."""
    load_prompt(pair.trained).save_pretrained(tmp_path)
    theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert theirs.config.model_type == pair.folder.name
    assert torch.equal(theirs.get_prompt_embedding_to_save("default"), load_prompt(pair.trained).vectors)


def test_the_legacy_file_of_peft(pair: Pair, tmp_path: Path) -> None:
    pair.in_peft(pair.trained).save_pretrained(tmp_path, safe_serialization=False)
    assert {file.name for file in tmp_path.glob("adapter_model.*")} == {"adapter_model.bin"}
    assert torch.equal(load_prompt(tmp_path).vectors, load_prompt(pair.trained).vectors)


OF_PEFT: dict[str, PeftConfig] = {
    "prompt tuning": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=N_VIRTUAL),
    "P-tuning, MLP": PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=N_VIRTUAL, encoder_hidden_size=8),
    "P-tuning, LSTM": PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=N_VIRTUAL,
        encoder_hidden_size=8,
        encoder_reparameterization_type="LSTM",
    ),
    "CPT": CPTConfig(task_type="CAUSAL_LM", cpt_token_ids=[5, 6, 7, 8], cpt_tokens_type_mask=[1, 2, 3, 4]),
    "multitask": MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=N_VIRTUAL, num_tasks=3, num_ranks=2
    ),
    "one task": MultitaskPromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=N_VIRTUAL, num_tasks=1),
}


def write_in_peft(pair: Pair, kind: str, folder: Path) -> None:
    """Make an adapter in PEFT, every weight of its encoder random, and save it with PEFT."""
    theirs = get_peft_model(pair.hf_model(), deepcopy(OF_PEFT[kind]))
    with torch.no_grad():
        for weight in theirs.prompt_encoder.parameters():
            weight.add_(torch.randn_like(weight))
    theirs.save_pretrained(folder)


@torch.no_grad()
@pytest.mark.parametrize("kind", OF_PEFT)
def test_every_kind_of_prompt_that_peft_writes_gives_its_logits(pair: Pair, kind: str, tmp_path: Path) -> None:
    write_in_peft(pair, kind, tmp_path)
    theirs = pair.in_peft(tmp_path)
    tokens = torch.tensor([[5, 6, 7, 8, 9]])
    tasks: dict[str, list[int | None]] = {"multitask": [0, 1, 2], "one task": [None, 0]}
    read = []
    for task in tasks.get(kind, [None]):
        prompt = load_prompt(tmp_path, pair.model, task=task)
        options = {} if kind not in tasks else {"task_ids": torch.tensor([task or 0])}
        # PEFT multiplies the vectors of a task in place, also those that it keeps: a fresh model for each pass
        expected = (pair.in_peft(tmp_path) if options else theirs)(input_ids=tokens, **options).logits
        with prompted(pair.model, prompt) as forward:
            torch.testing.assert_close(forward(tokens), expected, rtol=1e-4, atol=1e-4)
            read.append(forward(tokens))
        bare = pair.model(tokens)
        assert (read[-1][:, N_VIRTUAL:] - bare).abs().max() > 0.01  # the prompt does something
    if kind == "multitask":
        assert (read[0] - read[1]).abs().max() > 0.01
        assert (read[1] - read[2]).abs().max() > 0.01


@pytest.mark.parametrize("task", [None, -1, 3, 17])
def test_a_multitask_adapter_needs_one_of_its_tasks(pair: Pair, tmp_path: Path, task: int | None) -> None:
    write_in_peft(pair, "multitask", tmp_path)
    given = "needs one of them" if task is None else f"has no task {task}"
    with pytest.raises(DPCInterpError, match=f"a prompt for each of 3 tasks and {given}; give task=0 to task=2$"):
        load_prompt(tmp_path, task=task)


@pytest.mark.parametrize("kind", ["prompt tuning", "CPT"])
def test_an_adapter_without_tasks_refuses_a_task(pair: Pair, kind: str, tmp_path: Path) -> None:
    write_in_peft(pair, kind, tmp_path)
    with pytest.raises(DPCInterpError, match="adapter, which has no tasks; leave out task="):
        load_prompt(tmp_path, task=0)
