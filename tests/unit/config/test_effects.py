"""No dead option: each is changed alone in a tiny training, and something that it decides is seen to change with it."""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import pytest
import torch
import transformers
from pydantic import BaseModel
from torch.nn.modules.module import register_module_forward_pre_hook

from fledge.commands.evaluate import Question, evaluate
from fledge.commands.proof import FEW
from fledge.commands.train import train
from fledge.config.data import SourceConfig, ValidationFraction
from fledge.config.recipe import Recipe
from fledge.config.template import section_of
from fledge.engine.block import Keep
from fledge.engine.run import Engine, Packed
from fledge.errors import DataError, ModelError, RunError
from tests.foreign import foreign_adapter
from tests.runs import load
from tests.tiny_models import tiny_folder

Changes = dict[str, Any]
ON_HUB = "somebody/something"
GPU = torch.cuda.is_available()
LOSS = Engine.loss


@dataclass
class Seen:
    """What can be seen of one training from outside."""

    run: Path
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    """Shape of each input of the library's feed-forward blocks; positions, documents and what the blocks save of each
    micro-batch of the engine."""
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    """What was asked of the model hub, or of wandb."""
    refused: str = ""

    def events(self, kind: str, *names: str) -> list[tuple[Any, ...]]:
        lines = [json.loads(line) for line in (self.run / "events.jsonl").read_text().splitlines()]
        return [tuple(line[name] for name in names) for line in lines if line["event"] == kind]

    def document(self, name: str) -> Any:
        return json.loads((self.run / name).read_text())

    def names(self, folder: str) -> list[str]:
        return sorted(str(path.relative_to(self.run)) for path in (self.run / folder).glob("*"))


LOOKS: dict[str, Callable[[Seen], Any]] = {
    "losses": lambda seen: seen.events("step", "loss"),
    "tokens": lambda seen: seen.events("step", "tokens", "supervised_tokens"),
    "rates": lambda seen: seen.events("step", "learning_rate"),
    "steps": lambda seen: len(seen.events("step")),
    "saved": lambda seen: seen.events("saved", "step"),
    "validations": lambda seen: seen.events("validated", "step", "tokens"),
    "trainable": lambda seen: seen.events("train_started", "trainable_parameters"),
    "kept layers": lambda seen: [text for [text] in seen.events("notice", "text") if "kept dequantised" in text],
    "compiled": lambda seen: [text for [text] in seen.events("notice", "text") if "is compiled" in text],
    "device": lambda seen: seen.events("train_started", "device"),
    "weights": lambda seen: seen.document("summary.json")["adapter_sha256"],
    "exact": lambda seen: "exact_match_after" in seen.document("summary.json"),
    "rouge": lambda seen: "rouge_after" in seen.document("summary.json"),
    "kept": lambda seen: seen.names("checkpoints"),
    "trackers": lambda seen: seen.names("trackers"),
    "ledger": lambda seen: seen.document("ledger.json"),
    "attention": lambda seen: re.findall("attention: .*", (seen.run / "recipe.yaml").read_text()),
    "shapes": lambda seen: seen.shapes,
    "asked": lambda seen: seen.asked,
    "ended": lambda seen: [seen.document("summary.json")[name] for name in ("steps", "stopped_early", "adapter_step")],
    "project": lambda seen: [project for project, _ in seen.asked],
    "named": lambda seen: [name == seen.run.name for _, name in seen.asked],
    "run": lambda seen: seen.run,
    "test": lambda seen: evaluate(seen.run, question=Question(on="test")).rows,
}


@dataclass(frozen=True)
class Case:
    """One option, another value for it, and what must look different. `beside` holds for both trainings."""

    option: str
    value: Any
    look: str
    beside: Changes = field(default_factory=dict)
    refused: tuple[bool, bool] = (False, False)
    """Whether the training before the change, and the one after it, is refused."""


def source(name: str = "rows", **options: Any) -> Changes:
    """A source; `name` is of a file that `write_files` writes."""
    return {"path": f"{name}.jsonl" if "/" not in name else name, "format": "completion"} | options


HELD_OUT = {"data.validation": source("few")}
ONE_TOKEN = HELD_OUT | {"evaluate.max_new_tokens": 1}
LOUD = {"data.train": source("chat", format="chat"), "data.chat_template": "loud.jinja"}
WORSENING = HELD_OUT | {"evaluate.every_steps": 1, "train.learning_rate": 0.5, "train.max_steps": 5}
WHOLE = {"train.max_steps": None, "train.num_epochs": 1.0}
CASES = [
    Case("model.name_or_path", "other", "losses"),
    Case("model.revision", "v2", "asked", {"model.name_or_path": ON_HUB}, (True, True)),
    Case("model.dtype", "bfloat16", "losses"),
    Case("model.quantization", "nf4", "losses"),
    Case("model.keep_dequantized", True, "kept layers", {"model.quantization": "nf4"}),
    Case("model.attention", "eager", "attention"),
    Case("model.placement", "gpu", "device", {"model.placement": "cpu"}, (False, not GPU)),
    Case("model.trust_remote_code", True, "asked", {"model.name_or_path": ON_HUB}, (True, True)),
    Case("data.train", source("few"), "ledger"),
    Case("data.train.path", "few.jsonl", "ledger"),
    Case("data.train.format", "alpaca", "tokens"),
    Case("data.train.split", "test", "ledger", {"data.train.path": ON_HUB}),
    Case("data.train.subset", "small", "ledger", {"data.train.path": ON_HUB}),
    Case("data.train.revision", "v2", "ledger", {"data.train.path": ON_HUB}),
    Case("data.train.columns", {"prompt": "question", "completion": "reply"}, "tokens"),
    Case("data.train.weight", 2.0, "steps", WHOLE),
    Case("data.train.prompt", "question", "tokens"),
    Case("data.train.completion", "reply", "tokens"),
    Case("data.train.prompt_prefix", "Q: ", "tokens"),
    Case("data.train.prompt_template", "{question}, then:", "tokens"),
    Case("data.train.system_prompt", "Be kind.", "tokens", {"data.train.format": "alpaca"}),
    Case("data.train.delimiter", "|", "tokens", {"data.train.path": "rows.csv"}, (True, False)),
    Case("data.train.text_column", "body", "tokens", {"data.train.format": "text"}),
    Case("data.validation", source("few"), "validations"),
    Case("data.validation.fraction", 0.5, "validations", {"data.validation": {"fraction": 0.1}}),
    Case("data.test", source("few"), "test", {}, (True, False)),
    Case("data.max_length", 24, "ledger"),
    Case("data.max_target_length", 64, "ledger", {}, (False, True)),  # refused, for the base here is causal
    Case("data.overlong", "truncate", "ledger", {"data.max_length": 24}),
    Case("data.invalid_rows", "drop", "ledger", {"data.train.path": "torn.jsonl"}, (True, False)),
    Case("data.train_on", "all", "tokens"),
    Case("data.chat_template", "chatml", "tokens", {"data.train": source("chat", format="chat")}, (True, False)),
    Case("data.chat_template_kwargs", {"loud": True}, "tokens", LOUD),
    Case("data.sanitize_control_tokens", False, "tokens", {"data.train.completion": "spells"}),
    Case("data.new_special_tokens", ["plus"], "trainable"),
    Case("data.new_tokens", ["plus"], "trainable"),
    Case("data.shuffle", False, "losses"),
    Case("data.packing", False, "shapes"),
    Case("lora.r", 8, "trainable"),
    Case("lora.lora_alpha", 32, "losses"),
    Case("lora.lora_dropout", 0.5, "losses"),
    Case("lora.target_modules", ["q_proj"], "trainable"),
    Case("lora.use_rslora", True, "losses"),
    Case("lora.use_dora", True, "trainable"),
    Case("lora.init_lora_weights", "gaussian", "weights"),
    Case("lora.loraplus_lr_ratio", 4.0, "weights"),
    Case("lora.modules_to_save", ["lm_head"], "trainable"),
    Case("lora.init_from", "start", "losses"),
    Case("train.num_epochs", 2.0, "steps", WHOLE),
    Case("train.max_steps", 2, "steps"),
    Case("train.global_batch_size", 4, "tokens"),
    Case("train.micro_batch_tokens", 64, "shapes"),
    Case("train.micro_batch_rows", 2, "shapes"),
    Case("train.learning_rate", 1e-3, "rates"),
    Case("train.lr_scheduler", "constant", "rates"),
    Case("train.warmup_ratio", 1.0, "rates"),
    Case("train.warmup_steps", 2, "rates"),
    Case("train.weight_decay", 0.5, "weights"),
    Case("train.adam_betas", [0.5, 0.9], "weights"),
    Case("train.adam_eps", 1e-3, "weights"),
    Case("train.max_grad_norm", 0.01, "weights", {"train.adam_eps": 1e-3}),
    Case("train.gradient_checkpointing", True, "shapes", {"train.gradient_checkpointing": False}),
    Case("train.engine", "plain", "shapes"),
    Case("train.share_prefixes", False, "shapes", {"data.train.prompt_prefix": "now add these two numbers, quickly: "}),
    Case("train.kernels", "compiled", "compiled", {"train.engine": "plain"}),
    Case("train.save_every_steps", 1, "saved"),
    Case("train.keep_checkpoints", 1, "kept", {"train.save_every_steps": 1}),
    Case("train.seed", 8, "losses"),
    Case("evaluate.every_steps", 1, "validations", HELD_OUT),
    Case("evaluate.early_stopping_patience", 1, "ended", WORSENING),
    Case("evaluate.max_rows", 2, "validations", HELD_OUT),
    Case("evaluate.exact_match", True, "exact", ONE_TOKEN),
    Case("evaluate.rouge", True, "rouge", ONE_TOKEN),
    Case("evaluate.max_new_tokens", 3, "shapes", ONE_TOKEN | {"evaluate.exact_match": True}),
    Case("evaluate.num_beams", 2, "shapes", ONE_TOKEN | {"evaluate.exact_match": True}),
    Case("output.dir", "another-run", "run"),
    Case("output.trackers", ["tensorboard"], "trackers"),
    Case("output.wandb_project", "birds", "project", {"output.trackers": ["wandb"]}),
    Case("output.wandb_name", "first", "named", {"output.trackers": ["wandb"]}),
]  # fmt: skip


def write_files(folder: Path) -> None:
    """Rows that every format reads, two bases, and one broken file."""
    words = "zero one two three four five six seven eight nine".split()
    rows = [
        {
            "prompt": f"{words[n % 7]} plus {words[n // 7]}{' please' * (n % 3)} =",
            "completion": f" {words[n % 10]}",
            "question": f"what is {words[n % 7]} and {words[n // 7]}",
            "reply": f" it is {words[n % 10]}, you know",
            "instruction": f"add {n}",
            "input": "",
            "output": f"{n}",
            "spells": " the end is </s> here",
            "text": f"{words[n % 10]} comes after {words[n % 9]}",
            "body": f"{n} " * 5,
        }
        for n in range(12)
    ]
    said = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]} for _ in rows]
    for name, content in {"rows": rows, "few": rows[:5], "chat": said}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    table = [f"{row['prompt']}|{row['completion']}\n" for row in rows]
    (folder / "rows.csv").write_text("prompt|completion\n" + "".join(table))
    (folder / "torn.jsonl").write_text((folder / "rows.jsonl").read_text() + '{"prompt": \n')
    turn = "{{ '<s>' + m.role + ':' * (9 if loud else 1) + m.content + '</s>' }}"
    (folder / "loud.jinja").write_text(f"{{% for m in messages %}}{turn}{{% endfor %}}")
    tiny_folder("llama", folder / "base")
    tiny_folder("llama", folder / "other", seed=1)
    foreign_adapter(folder / "base", folder / "start", r=4, lora_alpha=8, target_modules="all-linear")


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Changes], Seen]]:
    """Trains the tiny recipe with some changes; the same changes are trained once."""
    folder = tmp_path_factory.mktemp("effects")
    write_files(folder)
    made: dict[str, Seen] = {}
    numbers = itertools.count()

    def trained(changes: Changes) -> Seen:
        key = json.dumps(changes)
        if key not in made:
            made[key] = _train(folder, changes, next(numbers))
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield trained


def _train(folder: Path, changes: Changes, number: int) -> Seen:
    changes = {"output.dir": f"run-{number}"} | changes
    seen = Seen(folder / changes["output.dir"])
    recipe = load(folder, _recipe(changes))

    def note(module: torch.nn.Module, inputs: Any) -> None:
        if type(module).__name__ == "LlamaMLP":
            seen.shapes.append(tuple(inputs[0].shape))

    def loss(engine: Engine, batch: Packed) -> torch.Tensor:
        positions = batch.side.input_ids.shape[0]
        seen.shapes.append((positions, len(batch.side.documents), *engine.keeps(positions, 0)))
        return LOSS(engine, batch)

    hook = register_module_forward_pre_hook(note)
    try:
        with pytest.MonkeyPatch.context() as patch:
            _hub(patch, seen, folder)
            patch.setattr(Engine, "loss", loss)
            train(recipe)
    except (DataError, ModelError) as error:
        seen.refused = str(error)
    finally:
        hook.remove()
    return seen


def _recipe(changes: Changes) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "model": {"name_or_path": "base", "dtype": "float32", "placement": "auto"},
        "data": {"train": source(), "max_length": 512},
        "lora": {"r": 4, "lora_alpha": 8},
        "train": {"global_batch_size": 6, "max_steps": 3, "learning_rate": 1e-2, "save_every_steps": 2, "seed": 7},
        "output": {},
    }
    for option, value in changes.items():
        holder = recipe
        *parts, name = option.split(".")
        for part in parts:
            holder = holder.setdefault(part, {})
        holder[name] = dict(value) if isinstance(value, dict) else value
    return recipe


def _hub(patch: pytest.MonkeyPatch, seen: Seen, folder: Path) -> None:
    """A data hub with two splits, and a model hub that has a tokenizer and no base."""

    def load_dataset(path: str, *, split: str, name: str = "whole", revision: str = "main") -> Any:
        assert path == ON_HUB
        is_few = (split, name, revision) != ("train", "whole", "main")
        lines = (folder / ("few.jsonl" if is_few else "rows.jsonl")).read_text().splitlines()
        return datasets.Dataset.from_list([json.loads(line) for line in lines])

    def answering(real: Any, kind: str) -> Any:
        def from_pretrained(name: str, *rest: Any, **options: Any) -> Any:
            if name != ON_HUB:
                return real(name, *rest, **options)
            seen.asked.append((kind, options["revision"], options["trust_remote_code"]))
            if kind == "AutoTokenizer":
                return real(str(folder / "base"))
            raise OSError("there is no base on this hub")

        return from_pretrained

    def init(*, project: str, name: str, **options: Any) -> Any:
        seen.asked.append((project, name))
        return mock.MagicMock()

    patch.setattr(datasets, "load_dataset", load_dataset)
    patch.setattr("wandb.init", init)
    for kind in ("AutoTokenizer", "AutoConfig", "AutoModelForCausalLM"):
        home = getattr(transformers, kind)
        patch.setattr(home, "from_pretrained", answering(home.from_pretrained, kind))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.option)
def test_an_option_that_is_changed_alone_changes_what_it_is_there_for(
    case: Case, look: Callable[[Changes], Seen]
) -> None:
    before, after = look(case.beside), look(case.beside | {case.option: case.value})
    shown = []
    for seen, is_refused in zip((before, after), case.refused, strict=True):
        assert bool(seen.refused) <= is_refused, seen.refused
        try:
            shown.append(LOOKS[case.look](seen))
        except (FileNotFoundError, RunError):
            assert is_refused, "a training that ran has written this down"
            shown.append(None)
    assert shown[0] != shown[1]
    assert os.fspath(before.run) != os.fspath(after.run)


def test_recomputing_has_its_effect_where_micro_batches_count_rows(look: Callable[[Changes], Seen]) -> None:
    seen = look({"train.micro_batch_rows": 2, "train.gradient_checkpointing": True})
    kept = [tuple(keep for keep in shape if isinstance(keep, Keep)) for shape in seen.shapes]
    proof = 1 + len(FEW.own)  # the micro-batches of the proof at the start, on an engine of its own
    computed = [keeps for keeps in kept if keeps][proof:]
    assert len(computed) == 9
    assert set(computed) == {(Keep.INPUT, Keep.INPUT)}


def test_a_training_that_is_not_changed_looks_the_same(tmp_path: Path) -> None:
    write_files(tmp_path)
    one, other = (_train(tmp_path, HELD_OUT, number) for number in (1, 2))
    for name in sorted(set(LOOKS) - {"run", "test"}):
        assert LOOKS[name](one) == LOOKS[name](other), name


def test_the_table_covers_every_option() -> None:
    def options(section: type[BaseModel], prefix: str) -> set[str]:
        return {f"{prefix}.{name}" for name in section.model_fields}

    known = set().union(*(options(section_of(field), name) for name, field in Recipe.model_fields.items()))
    known |= options(SourceConfig, "data.train") | options(ValidationFraction, "data.validation")
    assert len(known) == 79
    assert sorted(case.option for case in CASES) == sorted(known)
