"""Newcomers' mistakes: each is told without a traceback, and its cure, applied to the letter, gets further."""

import json
import re
from pathlib import Path

import pytest

from fledge.config.document import read_document
from fledge.config.foreign import FRACTIONS, IN_SECTION, INSTEAD, NEEDLESS, SAME, SECTIONS, SOURCES
from fledge.config.load import load_recipe
from fledge.config.valued import VALUED
from fledge.config.words import WORDS
from fledge.errors import Problem, RecipeError
from tests.cures import NotLiteral, apply_cure, thawed
from tests.house.test_cures import PYTHON_ARGUMENT, unknown_keys

MODEL = "model: {name_or_path: builtin:nestling}\n"
DATA = "data:\n  train: {path: rows.jsonl, format: alpaca}\n"
ALL = MODEL + DATA


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("rows.jsonl", "faq.csv", "notes.txt"):
        (tmp_path / name).write_text("{}\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "model.safetensors").write_text("")
    return tmp_path


def problems_of(folder: Path, text: str, *overrides: str) -> tuple[Problem, ...]:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        load_recipe(path, overrides)
    except RecipeError as error:
        return error.problems
    return ()


def check_words(problems: tuple[Problem, ...]) -> None:
    for problem in problems:
        assert not PYTHON_ARGUMENT.search(str(problem)), problem
        assert not unknown_keys(problem.cure), problem


def mend(folder: Path, text: str) -> tuple[Problem, ...]:
    """Follow the cures, one after the other, each to the letter; what is left where they lead no further."""
    seen = set()
    for _ in range(12):
        problems = problems_of(folder, text)
        check_words(problems)
        if not problems:
            return ()
        tree = thawed(read_document(text.encode(), "recipe.yaml").tree)
        problem = problems[0]
        told = (problem.what, problem.cure)
        assert told not in seen, f"the cure of {problem} was applied, and it is told again"
        seen.add(told)
        try:
            apply_cure(tree, problem)
        except NotLiteral:
            return problems
        text = json.dumps(tree)
    raise AssertionError(f"no end: {problems}")


TRAIN = """
learning_rate: '3e-4' | learning_rate: 1e-4, | learning_rate: "0,0003" | learning_rate: 5 | learning_rate: -1e-4
learning_rate: | lr: 3e-4 | LR: 3e-4 | learning-rate: 3e-4 | Learning_Rate: 3e-4 | learningrate: 3e-4
num_epochs: '3' | num_epochs: three | num_epochs: 0 | num_epochs: 3 epochs | epochs: 2 | epoch: 2
num_train_epochs: 1 | max_steps: -1 | max_steps: 0 | max_steps: none | max_steps: 10.0 | max_steps: 1e3
max_steps: 2.5 | max_steps: "1,000" | batch_size: 8 | micro_batch_size: 2 | per_device_train_batch_size: 2
gradient_accumulation_steps: 4 | global_batch_size: 0 | global_batch_size: 32.0 | global_batch_size: auto
global_batch_size: [8] | grad_accum: 3 | micro_batch_tokens: none | micro_batch_tokens: max | micro_batch_rows: auto
micro_batch_rows: 0 | lr_scheduler: cosin | lr_scheduler: Cosine | lr_scheduler: constant_with_warmup
lr_scheduler: cosine_with_restarts | lr_scheduler: none | lr_scheduler_type: linear | scheduler: cosine | warmup: 10
warmup_steps: 0.1 | warmup_steps: 10% | warmup_ratio: 100 | warmup_ratio: 3% | warmup_ratio: '0.1'
warmup_ratio: -0.1 | weight_decay: no | weight_decay: -1 | adam_betas: 0.9 | adam_betas: [0.9]
adam_betas: "0.9, 0.95" | adam_betas: [0.9, 0.95, 0.1] | adam_beta2: 0.95 | max_grad_norm: 0 | max_grad_norm: none
max_grad_norm: -1 | gradient_clipping: 1.0 | adam_epsilon: 1e-8 | gradient_checkpointing: yes
gradient_checkpointing: unsloth | gradient_checkpointing: 1 | gradient_checkpointing: full | engine: torch
engine: FAST | kernels: triton | kernels: compiled | kernels: true | share_prefixes: no | save_every_steps: epoch
save_every_steps: 0 | save_steps: 100 | save_total_limit: 3 | keep_checkpoints: 0 | seed: '42' | seed: 42.0
seed: -1 | seed: none | seed: 0x | optimizer: adamw_8bit | logging_steps: 10 | bf16: true | early_stop: 3
num_gpus: 2 | deepspeed: ds.json | fp16: true | eval_steps: 50 | report_to: wandb | output_dir: runs/x
"""
LORA = """
r: '16' | r: 16.0 | r: 0 | rank: 8 | lora_r: 8 | lora_rank: 8 | alpha: 32 | lora_alpha: auto | lora_alpha: 0
dropout: 0.05 | lora_dropout: 5 | lora_dropout: 5% | lora_dropout: 1.0 | lora_dropout: none | bias: none
target_modules: all | target_modules: all_linear | target_modules: [all-linear] | target_modules: q_proj,v_proj
target_modules: "q_proj v_proj" | target_modules: "['q_proj', 'v_proj']" | target_modules: [] | target_modules: "("
target_modules: null | target_modules: {q_proj: true} | target_modules: 3 | target_modules: ["q_proj, v_proj"]
modules_to_save: lm_head | modules_to_save: null | modules_to_save: "embed_tokens,lm_head" | lora_target: all
init_lora_weights: false | init_lora_weights: pissa_niter_4 | init_lora_weights: 'true' | init_lora_weights: kaiming
use_dora: yes | use_rslora: 'True' | use_dora: 1 | loraplus_lr_ratio: 0 | loraplus_lr_ratio: none
task_type: CAUSAL_LM | targets: [q_proj] | modules: all-linear | fan_in_fan_out: false | layers_to_transform: [1]
lora: 3
"""
MODEL_OPTIONS = """
dtype: bf16 | dtype: fp16 | dtype: float | dtype: torch.bfloat16 | dtype: auto | dtype: int8 | dtype: BFloat16
dtype: 16 | quantization: 4bit | quantization: true | quantization: false | quantization: 8 | quantization: gptq
quantization: null | quantization: nf-4 | quantization: {bits: 4} | load_in_4bit: true | load_in_8bit: true
load_in_4bit: false | placement: cuda | placement: cuda:0 | placement: mps | placement: gpu0 | device: cpu
device_map: auto | device: cuda | attention: flash_attention_2 | attention: xformers | attention: true
attention: spda | attn_implementation: sdpa | trust_remote_code: yes | trust_remote_code: 1
trust_remote_code: 'true' | revision: 1.0 | revision: null | revision: 7 | torch_dtype: bfloat16 | base_model: gpt2
name: gpt2 | tokenizer: x | keep_dequantized: on | flash_attention: true
"""
DATA_OPTIONS = """
validation: 0.1 | validation: true | validation: false | validation: 5% | validation: 5 | validation: rows.jsonl
validation: none | validation: 0 | validation: {fraction: 10} | validation: {fraction: 0}
validation: {fraction: '0.1'} | validation: {split: 0.1} | validation: {size: 0.1} | validation: {fraction: 1.5}
validation: {fraction:0.1} | validation: {path: rows.jsonl} | validation: auto | validation: [rows.jsonl]
val_set_size: 0.05 | val_set_size: 200 | validation_split: 0.1 | validation_split_percentage: 5 | test_size: 0.2
valid: 0.1 | validatoin: {fraction: 0.1} | max_length: 2048.0 | max_length: '2048' | max_length: 4
max_length: auto | max_length: 2,048 | max_length: none | cutoff_len: 512 | sequence_len: 512 | max_seq_length: 512
block_size: 512 | max_length: 512 tokens | maxlength: 64 | overlong: cut | overlong: true | overlong: truncation
overlong: skip | overlong: raise | overlong: Drop | truncation: yes | invalid_rows: skip | invalid_rows: ignore
invalid_rows: dropp | train_on: assistant | train_on: false | train_on: inputs | train_on_inputs: true
train_on_inputs: false | mask_prompt: true | chat_template: '' | chat_template: none | chat_template: llama3
chat_template: ChatML | template: llama3 | new_special_tokens: <x> | new_special_tokens: [1]
new_special_tokens: {pad: <pad>} | new_special_tokens: [<a>, <a>] | packing: yes | packing: 'false'
sample_packing: true | seed: 3 | format: alpaca | batch_size: 3 | test: rows.jsonl | test: false
eval_dataset: rows.jsonl | columns: [a, b]
"""
SOURCES_OF_ROWS = """
rows.jsonl | [rows.jsonl] | [rows.jsonl, faq.csv] | faq.csv | notes.txt | tatsu-lab/alpaca
{path: [rows.jsonl, faq.csv], format: chat} | {path: rows.jsonl} | {path: rows.jsonl, format: csv}
{path: rows.jsonl, format: json} | {path: rows.jsonl, format: jsonl} | {path: rows.jsonl, format: sharegpt}
{path: rows.jsonl, format: [chat]} | {path: rows.jsonl, format: Alpaca} | {path: rows.jsonl, format: instruct}
{path: rows.jsonl, format: dpo} | {path: rows.jsonl, format: null} | {path: rows.jsonl, type: alpaca}
{path: rows.jsonl, type: chat_template} | {path: rows.jsonl, type: sharegpt} | {path: rows.json, format: alpaca}
{path: row.jsonl, format: alpaca} | {path: ROWS.jsonl, format: alpaca} | {file: rows.jsonl, format: alpaca}
{train: rows.jsonl, format: alpaca} | {url: rows.jsonl, format: alpaca} | {}
{path: "https://huggingface.co/datasets/tatsu-lab/alpaca", format: alpaca} | {rows.jsonl: alpaca}
{path: "rows.jsonl ", format: alpaca} | {path: rows.jsonl, format: alpaca, split: test} | {path: "", format: alpaca}
{path: faq.csv, format: completion, prompt: q, response: a}
{path: faq.csv, format: completion, question: q, answer: a}
{path: faq.csv, format: completion, prompt: q, completion: q}
{path: faq.csv, format: completion, prompt_column: q} | {path: faq.csv, format: alpaca, prompt: q}
{path: faq.csv, format: completion, prompt: null} | {path: 3, format: alpaca}
{path: faq.csv, format: completion, prompt_prefix: "Q: ", weight: 0}
{path: faq.csv, format: completion, weight: half} | [{path: rows.jsonl, format: alpacca}]
[{path: rows.jsonl, format: alpaca}, faq.csv] | null | 3 | [] | {fraction: 0.5}
"""
BASES = """
gpt2 | [gpt2] | {name: gpt2} | {path: base} | {id: gpt2} | {base_model: gpt2} | {name_or_path: ./bse}
{name_or_path: rows.jsonl} | {name_or_path: "https://huggingface.co/gpt2"} | {name_or_path: "gpt2 "}
{name_or_path: a/b/c} | {name_or_path: model.gguf} | {name_or_path: base/model.safetensors} | {name_or_path: base/}
{name_or_path: ./} | {name_or_path: builtin:nestlin} | {name_or_path: builtin:} | {name_or_path: null}
{name_or_path: 3} | {name_or_path: [gpt2]} | null | true | {} | {name_or_path: meta llama}
"""
OTHER_LINES = """
lora: | lora: true | lora: 16 | lora: [r: 8] | output: runs/x | evaluate: true | train: {} | trian: {seed: 3}
Train: {seed: 3} | lora.r: 8 | train.learning_rate: 1e-4 | lora/r: 8 | output: {trackers: wandb}
output: {trackers: [wandb, tensorbord]} | output: {trackers: none} | output: {trackers: "wandb, tensorboard"}
output: {trackers: mlflow} | output: {dir: 3} | output: {trackers: [wandb, wandb]} | output: {name: x}
output: {dir: null} | evaluate: {every_steps: 0.5} | evaluate: {rouge: yes} | evaluate: {every_steps: 100}
evaluate: {exact_match: true} | evaluate: {max_rows: -1} | evaluate: {num_beams: 0} | evaluate: {max_rows: all}
evaluate: {metric: rouge} | evaluation: {rouge: false} | training: {seed: 3} | peft: {r: 8}
training_args: {lr: 1e-4, seed: 3} | dataset: {max_length: 64} | logging: {trackers: [wandb]} | report_to: [wandb]
adapter: lora | learning_rate: 1e-4 | lora_r: 8 | base_model: gpt2 | datasets: [{path: rows.jsonl, type: alpaca}]
dataset: rows.jsonl | load_in_4bit: true | val_set_size: 0.05 | max_seq_length: 512 | wandb_project: x | stage: sft
finetuning_type: lora | neftune_noise_alpha: 5 | train: {warmup_steps: 3, warmup_ratio: 0.5}
train: {micro_batch_rows: 2, micro_batch_tokens: 64} | train: {warmup_steps: 9, max_steps: 3}
train: {engine: fast, kernels: compiled} | train: {share_prefixes: true, engine: plain}
lora: {use_dora: true, init_lora_weights: pissa} | train: [{seed: 3}, {num_epochs: 1}] | seed: 3 | r: 8
trackers: [wandb] | quantization: nf4 | packing: false | path: rows.jsonl | optimizer: {lr: 1e-4}
"""


def parts(text: str) -> list[str]:
    return [part.strip() for line in text.strip().splitlines() for part in line.split(" | ")]


MISTAKES = [
    *(f"{ALL}train:\n  {line}\n" for line in parts(TRAIN)),
    *(f"{ALL}lora:\n  {line}\n" for line in parts(LORA)),
    *(f"model:\n  name_or_path: builtin:nestling\n  {line}\n{DATA}" for line in parts(MODEL_OPTIONS)),
    *(f"{ALL}  {line}\n" for line in parts(DATA_OPTIONS)),
    *(f"{MODEL}data:\n  train: {source}\n" for source in parts(SOURCES_OF_ROWS)),
    *(f"model: {base}\n{DATA}" for base in parts(BASES)),
    *(f"{ALL}{line}\n" for line in parts(OTHER_LINES)),
]
"""Each is a recipe with one mistake, or with none that a newcomer would call one."""


@pytest.mark.parametrize("text", MISTAKES, ids=lambda text: text.replace(ALL, "").strip().replace("\n", " ")[-60:])
def test_the_cures_of_a_mistake_lead_to_a_recipe_that_loads(folder: Path, text: str) -> None:
    left = mend(folder, text)
    assert all(problem.cure or "expected" in problem.what for problem in left), left
    if left:
        assert any(sign in f"{left[0].what} {left[0].cure}" for sign in FOR_A_PERSON), left


# Words of the messages that a program cannot follow: what is wanted is known to a person alone.
FOR_A_PERSON = (
    "add it: text",
    "write a value behind it",
    "give the folder of a model",
    "a hub id is NAME or OWNER/NAME",
    "there is:",
    "relative paths start from",
    "name the column that holds the answer",
    "write its options below it, at least",
    "or write its options below it",
    "expected text",
    "expected a mapping of names to text",
    "expected {path: ..., format: ...}",
    "base's own chat template",
    "the first is in line",
    "give data.validation a source",
)


def test_there_are_many_mistakes_and_few_leave_a_person_to_decide(folder: Path) -> None:
    assert len(MISTAKES) == len(set(MISTAKES)) > 250
    left = [text for text in MISTAKES if mend(folder, text)]
    assert len(left) < 0.2 * len(MISTAKES), "\n".join(left)


VALUES = (True, 4, "some/name", 0.05, ["a"])
NAMES = sorted({*SAME, *SOURCES, *FRACTIONS, *VALUED, *INSTEAD, *NEEDLESS})


def told_of(folder: Path, place: str, values: dict[str, object]) -> dict[str, Problem]:
    """What is told of each name that is put into the section at `place`."""
    tree = thawed(read_document(ALL.encode(), "recipe.yaml").tree) | {"train": {}, "lora": {}}
    holder = tree
    for part in place.split(".") if place else ():
        holder = holder[part]
    holder |= values
    problems = problems_of(folder, json.dumps(tree))
    check_words(problems)
    ending = "has no section " if not place else f"{place} has no option "
    return {problem.what.partition(ending)[2]: problem for problem in problems if ending in problem.what}


@pytest.mark.parametrize("place", ["", "model", "data", "data.train", "lora", "train"])
def test_a_foreign_name_is_answered_wherever_it_stands(folder: Path, place: str) -> None:
    for value in VALUES:
        told = told_of(folder, place, dict.fromkeys(NAMES, value))
        # one name is an option of the section at hand, or is answered there by the section's own table
        assert set(NAMES) - set(told) == set()
        for name, problem in told.items():
            assert re.match(r"did you mean |write |remove it", problem.cure), (name, problem)


@pytest.mark.parametrize("part", range(4))
def test_the_answer_to_a_foreign_name_can_be_written_as_it_stands(folder: Path, part: int) -> None:
    for number, name in list(enumerate(NAMES))[part::4]:
        tree = thawed(read_document(ALL.encode(), "recipe.yaml").tree) | {name: VALUES[number % len(VALUES)]}
        problem = told_of(folder, "", {name: tree[name]})[name]
        apply_cure(tree, problem)
        assert problem.what not in [again.what for again in problems_of(folder, json.dumps(tree))], (name, problem)


def test_other_names_of_sections_and_of_options_in_one_section_are_answered(folder: Path) -> None:
    for name, section in SECTIONS.items():
        problems = problems_of(folder, f"{ALL}{name}: {{x: 3}}\n")
        assert problems[0].cure == f"did you mean {section}?", name
    for section, names in IN_SECTION.items():
        for name, option in names.items():
            tree = thawed(read_document(ALL.encode(), "recipe.yaml").tree) | {"lora": {}, "output": {}}
            holder = tree
            for part in section.split("."):
                holder = holder[part]
            holder[name] = "x"
            cures = [problem.cure for problem in problems_of(folder, json.dumps(tree))]
            assert f"did you mean {option}?" in cures, (section, name, cures)


@pytest.mark.parametrize("option", WORDS)
def test_another_word_for_a_value_is_answered_by_one_that_the_option_takes(folder: Path, option: str) -> None:
    for word in WORDS[option]:
        tree = thawed(read_document(ALL.encode(), "recipe.yaml").tree)
        holder, path = tree, option.split(".")
        for part in path[:-1]:
            holder = holder.setdefault(part, {})
        holder[path[-1]] = {"true": True, "false": False, "null": None}.get(word, word)
        problems = problems_of(folder, json.dumps(tree))
        if not problems:  # a word for nothing, which the option has too
            continue
        assert problems[0].cure.startswith("write "), (option, word, problems)
        apply_cure(tree, problems[0])
        assert not [p for p in problems_of(folder, json.dumps(tree)) if option in p.what and "expected" in p.what]


ON_THE_COMMAND_LINE = {
    "lr=1e-4": "did you mean train.learning_rate?",
    "load_in_4bit=true": "write model.quantization=nf4",
    "val_set_size=0.05": "write 'data.validation={fraction: 0.05}'",
    "train.micro_batch_size=2": "write train.micro_batch_rows=2 (",
    "datasets=rows.jsonl": "write 'data.train={path: rows.jsonl, format: chat}'",
    "train.wamup_steps=3": "did you mean warmup_steps?",
    "train.warmup_steps=0.1": "remove it, and write train.warmup_ratio=0.1",
}


@pytest.mark.parametrize(("override", "cure"), ON_THE_COMMAND_LINE.items())
def test_a_cure_for_the_command_line_is_written_as_the_command_line_takes_it(
    folder: Path, override: str, cure: str
) -> None:
    (problem,) = problems_of(folder, ALL, override)
    assert problem.cure.startswith(cure)
