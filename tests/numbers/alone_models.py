"""What the tests of rows as if alone share: adapted tiny models, rows, and what is said of computing them together."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from bench.families_config import small_config
from bench.families_flags import FAMILIES
from fledge.adapters.targets import check_targets
from fledge.commands.engine import build_engine, engine_logits, with_blocks
from fledge.commands.library_loss import alone_loss, plain_loss
from fledge.commands.trials import Ids, Trials, Way, make_trials, prove
from fledge.config.recipe import Recipe
from fledge.data.rows import Batch, Row
from fledge.models import documents
from fledge.models.facts import read_facts
from fledge.models.rotary import angles_by_row
from tests.tiny_models import PAIRS, VOCABULARY, tiny_folder

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


def small_model(kind: str, **settings: Any) -> Any:
    """As small a model as the bench makes of a kind."""
    torch.manual_seed(0)
    config = small_config(kind, FAMILIES.get(kind, {}) | settings)
    return with_adapter(AutoModelForCausalLM.from_config(config).eval())


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
