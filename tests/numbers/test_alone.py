"""Before a training: what is wrong with computing rows together is found, and nothing is found where nothing is."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from fledge.adapters.targets import check_targets
from fledge.commands.engine import build_engine, engine_logits, with_blocks
from fledge.commands.layout import choose_layout
from fledge.commands.library_loss import alone_loss, plain_loss
from fledge.commands.train import train
from fledge.commands.trials import Ids, Trials, Way, make_trials, prove
from fledge.config.recipe import Recipe
from fledge.data.rows import Batch, Row
from fledge.engine.packed import Packed
from fledge.errors import ModelError
from fledge.events import Notice
from fledge.models import documents
from fledge.models.blocks import blocks
from fledge.models.facts import read_facts
from fledge.models.one_of_each import kinds_of_blocks, one_of_each
from fledge.models.rotary import angles_by_row
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import ARCHITECTURES, PAIRS, VOCABULARY, tiny_folder

CPU = torch.device("cpu")
LENGTHS = (9, 61, 33, 4)
IDS = Ids(pad=2, decoder_start=None)
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}


@dataclass(frozen=True)
class Store:
    """As much of a token store as a trial asks for."""

    rows: tuple[Row, ...]

    @property
    def lengths(self) -> NDArray[np.int32]:
        return np.array([len(row.input_ids) for row in self.rows], dtype=np.int32)

    def row(self, index: int) -> Row:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)


def some_rows() -> Store:
    dice = np.random.default_rng(3)
    rows = []
    for length in LENGTHS:
        trained = np.arange(length) >= max(1, length // 3)
        rows.append(Row(dice.integers(3, VOCABULARY, length, dtype=np.int32), trained))
    return Store(tuple(rows))


def with_adapter(base: Any) -> Any:
    torch.manual_seed(1)
    kind = "SEQ_2_SEQ_LM" if base.config.is_encoder_decoder else "CAUSAL_LM"
    targets = check_targets(base, "all-linear", facts=read_facts(base)).names
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets, task_type=kind))
    return model.eval()


def named(name: str, tmp_path: Any, dtype: torch.dtype = torch.float32) -> Any:
    folder = tiny_folder(name, tmp_path / name)
    kind = AutoModelForSeq2SeqLM if name in PAIRS else AutoModelForCausalLM
    return with_adapter(kind.from_pretrained(folder, dtype=dtype).eval())


def of_kind(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL | settings)).eval()
    angles_by_row(base)
    return with_adapter(base)


def trials_of(model: Any) -> tuple[Any, Trials]:
    facts = read_facts(model.get_base_model())
    ids = Ids(2, 2) if facts.is_encoder_decoder else IDS
    return facts, make_trials(model, facts, stores=[some_rows()], ids=ids)


def recipe(**data: Any) -> Recipe:
    train = {"micro_batch_rows": data.pop("rows")} if "rows" in data else {}
    content = {"data": {"train": ({"path": "rows.jsonl", "format": "text"},), **data}, "train": train}
    return Recipe.model_validate({"model": {"name_or_path": "base"}, "output": {"dir": "run"}} | content)


def packed_by_library(model: Any, facts: Any, batch: Batch) -> torch.Tensor:
    with documents.documents_apart(model.get_base_model()) as apart:
        return plain_loss(facts, apart).logits(model, batch)


def found_in(model: Any, logits: Callable[[Batch], torch.Tensor], *, few: Any = None, is_packed: bool = True) -> str:
    """What is said of computing rows together by `logits`."""
    facts, trials = trials_of(model)
    way = Way(is_packed, few or logits, logits)
    return prove(trials, model, alone=functools.partial(alone_loss(facts).logits, model), way=way) or ""


def found_by_engine(model: Any, spoil: Callable[[Any], Any] = lambda engine: engine) -> str:
    """What is said of the engine, spoilt or not."""
    engine, kinds = build_engine(model, device=CPU, rows=0), trials_of(model)[1].kinds
    few, whole = (functools.partial(engine_logits, spoil(each)) for each in (with_blocks(engine, kinds), engine))
    return found_in(model, whole, few=few)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_is_found_in_the_library_packed_or_in_the_engine(name, dtype, tmp_path):
    model = named(name, tmp_path, dtype)
    facts, _ = trials_of(model)
    assert found_in(model, functools.partial(packed_by_library, model, facts)) == ""
    assert found_in(model, functools.partial(plain_loss(facts, None).logits, model), is_packed=False) == ""
    assert found_by_engine(model) == ""


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_is_found_in_padded_pairs(name, tmp_path):
    model = named(name, tmp_path)
    assert choose_layout(recipe(), model, facts=trials_of(model)[0], trials=trials_of(model)[1]).layout == "padded"


@contextlib.contextmanager
def planted(what: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fault in how the library's modules compute packed rows."""
    with monkeypatch.context() as patch:
        if what == "neighbour":
            patch.setattr(documents.Documents, "spans", lambda self, width: [(0, width)])
        if what == "window":
            patch.setattr(documents.DocumentMask, "within", lambda *_, **__: None)
        if what == "wider window":
            right_within = documents.DocumentMask.within
            patch.setattr(documents.DocumentMask, "within", functools.partialmethod(_wider, right_within))
        yield


def _wider(mask: Any, right: Any, start: int, end: int, *, device: torch.device) -> torch.Tensor | None:
    found = right(mask, start, end, device=device)
    return None if found is None else found | found.roll(-1, dims=-1).tril()


@pytest.mark.parametrize("what", ["neighbour", "window", "wider window"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_neighbour_seen_and_a_window_lost_are_found(what, dtype, tmp_path, monkeypatch):
    model = named("llama" if what == "neighbour" else "mistral", tmp_path, dtype)
    facts, _ = trials_of(model)
    with planted(what, monkeypatch):
        assert "packed into one micro-batch differ" in found_in(
            model, functools.partial(packed_by_library, model, facts)
        )


def shifted(batch: Batch, *, start: int) -> Batch:
    """The batch with the positions of each document one further from `start` on."""
    return replace(batch, position_ids=batch.position_ids + (batch.position_ids >= start))


@pytest.mark.parametrize(("name", "start"), [("gpt2", 0), ("llama", 2), ("llama", 40)])
@pytest.mark.parametrize("is_packed", [True, False])
def test_a_position_shifted_by_one_is_found(name, start, is_packed, tmp_path):
    """Rotary positions are relative: of these one in the middle of a row is shifted."""
    model = named(name, tmp_path)
    facts, _ = trials_of(model)
    right = packed_by_library if is_packed else lambda m, f, batch: plain_loss(f, None).logits(m, batch)
    assert "differ from each alone" in found_in(
        model, lambda batch: right(model, facts, shifted(batch, start=start)), is_packed=is_packed
    )


def test_a_state_carried_over_is_found_and_refused(tmp_path):
    model, seen = named("llama", tmp_path), []
    block = blocks(model.get_base_model())[0]

    def carry(_: Any, given: Any, out: torch.Tensor) -> torch.Tensor:
        seen.append(out.detach().mean())
        return out + 0.1 * sum(seen[:-1], torch.zeros(()))

    block.register_forward_hook(carry)
    facts, trials = trials_of(model)
    with pytest.raises(ModelError, match="depends on the rows before it"):
        choose_layout(recipe(), model, facts=facts, trials=trials)


def without_window(engine: Any) -> Any:
    blocks = [
        replace(block, attention=replace(block.attention, shape=replace(block.attention.shape, window=None)))
        for block in engine.body.blocks
    ]
    return replace(engine, body=replace(engine.body, blocks=tuple(blocks)))


def as_one_document(engine: Any) -> Any:
    def states(batch: Packed) -> torch.Tensor:
        whole = replace(batch.side.documents[0], end=batch.side.documents[-1].end)
        return engine.states(replace(batch, side=replace(batch.side, documents=(whole,))))

    return _Wrapped(engine, states)


def one_further_on(engine: Any) -> Any:
    def states(batch: Packed) -> torch.Tensor:
        positions = batch.side.position_ids + (batch.side.position_ids >= 3)
        return engine.states(replace(batch, side=replace(batch.side, position_ids=positions)))

    return _Wrapped(engine, states)


@pytest.mark.parametrize("spoil", [without_window, as_one_document, one_further_on])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_faults_are_found_in_the_engine(spoil, dtype, tmp_path):
    assert "packed into one micro-batch differ" in found_by_engine(named("mistral", tmp_path, dtype), spoil)


@dataclass
class _Wrapped:
    """An engine whose hidden states are computed otherwise."""

    engine: Any
    states: Any

    @property
    def body(self) -> Any:
        return self.engine.body


FALLING_BACK = {
    "gpt_neo": (
        {
            "num_layers": 2,
            "num_hidden_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 6,
        },
        "padded",
    ),
    "rwkv": ({"attention_hidden_size": 32, "context_length": 256}, "padded"),
    "llama4_text": (
        {"attention_chunk_size": 8, "num_local_experts": 2, "intermediate_size_mlp": 48, "head_dim": 8},
        "packed",
    ),
    "phi3": (
        {
            "pad_token_id": 2,
            "max_position_embeddings": 256,
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0, 1.1, 1.2, 1.3],
                "long_factor": [2.0, 4.0, 8.0, 16.0],
                "original_max_position_embeddings": 16,
            },
        },
        "packed",
    ),
    "llama": (
        {"max_position_embeddings": 16, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
        "packed",
    ),
}


@pytest.mark.parametrize("kind", FALLING_BACK)
def test_each_kind_gets_the_fastest_layout_in_which_its_rows_are_as_if_alone(kind):
    settings, layout = FALLING_BACK[kind]
    model = of_kind(kind, **settings)
    facts, trials = trials_of(model)
    chosen = choose_layout(recipe(), model, facts=facts, trials=trials)
    assert (chosen.layout, bool(chosen.notice)) == (layout, layout != "packed")


def test_without_its_own_rows_angles_a_dynamic_base_would_be_refused(monkeypatch):
    monkeypatch.setattr("tests.numbers.test_alone.angles_by_row", lambda model: None)
    model = of_kind("llama", **FALLING_BACK["llama"][0])
    facts, trials = trials_of(model)
    with pytest.raises(ModelError, match="depends on the rows before it"):
        choose_layout(recipe(), model, facts=facts, trials=trials)


def test_a_recipe_that_rules_out_what_is_left_is_told_which_key():
    model = of_kind("gpt_neo", **FALLING_BACK["gpt_neo"][0])
    facts, trials = trials_of(model)
    with pytest.raises(ModelError, match=r"data\.packing"):
        choose_layout(recipe(packing=True), model, facts=facts, trials=trials)
    assert choose_layout(recipe(packing=False), model, facts=facts, trials=trials).layout == "padded"
    assert choose_layout(recipe(rows=1), model, facts=facts, trials=trials).layout == "single"


def test_the_reason_is_why_the_layout_before_it_fails(monkeypatch):
    said = {"packed": "no attention of its own", "padded": "rows differ", "single": None}
    monkeypatch.setattr("fledge.commands.layout._wrong", lambda layout, *_, **__: said[layout])
    model = of_kind("llama")
    facts, trials = trials_of(model)
    chosen = choose_layout(recipe(), model, facts=facts, trials=trials)
    assert chosen.notice == "each row is computed alone: rows differ"


def test_a_row_that_gives_no_numbers_hides_no_fault_of_the_others(tmp_path, monkeypatch):
    model = named("llama", tmp_path)
    rows = some_rows().rows
    rare = np.setdiff1d(rows[1].input_ids, np.concatenate([row.input_ids for row in (rows[0], *rows[2:])]))[0]
    model.get_base_model().get_input_embeddings().weight.data[rare] = torch.nan
    facts, _ = trials_of(model)
    packed = functools.partial(packed_by_library, model, facts)
    assert found_in(model, packed) == ""
    with planted("neighbour", monkeypatch):
        assert "packed into one micro-batch differ" in found_in(model, packed)


def test_padding_is_told_whoever_chose_the_librarys_modules(tmp_path):
    base = tiny_folder("llama", tmp_path / "base")  # for its tokenizer
    config = AutoConfig.for_model("gpt_neo", **SMALL | FALLING_BACK["gpt_neo"][0])
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    rows = write_rows(tmp_path / "rows.jsonl")
    for engine in ("auto", "plain"):
        content = recipe_dict(base, rows, tmp_path / engine, train__engine=engine, train__max_steps=1)
        told: list[Any] = []
        train(load(tmp_path / f"of-{engine}", content), observers=[told.append])
        texts = [each.text for each in told if isinstance(each, Notice)]
        assert any(text.startswith("rows are padded, not packed: ") for text in texts), engine


def test_blocks_of_one_kind_hand_on_and_the_model_is_as_before_afterwards(tmp_path):
    model = of_kind("mistral", num_hidden_layers=4, sliding_window=6)
    base = model.get_base_model()
    assert kinds_of_blocks(base) == [0, 0, 0, 0]
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        with one_of_each(base, [0, 0, 0, 0]):
            few = model(input_ids=ids, use_cache=False).logits
        assert torch.equal(model(input_ids=ids, use_cache=False).logits, whole)
    assert not torch.allclose(few, whole)
    assert all("forward" not in vars(block) for block in blocks(base))


def test_windows_and_full_attention_are_two_kinds():
    model = of_kind("gemma2", num_hidden_layers=4, head_dim=8, sliding_window=6)
    assert kinds_of_blocks(model.get_base_model()) == [0, 1, 0, 1]
