"""Every family, merged and reloaded by plain transformers in a process without Fledge, is what was trained."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fledge.exporting.outside import Outside
from tests.tiny_models import ARCHITECTURES, PAIRS
from tests.unit.exporting.drafts import Written, ask, write

VARIANTS = {
    "dora": ("llama", {"lora__use_dora": True}),
    "rslora": ("llama", {"lora__use_rslora": True}),
    "pissa": ("llama", {"lora__init_lora_weights": "pissa"}),
    "modules-to-save": ("llama", {"lora__modules_to_save": ["norm"]}),
    "whole-head": ("llama", {"lora__modules_to_save": ["lm_head"]}),
    "conv1d-dora": ("gpt2", {"lora__use_dora": True}),
    "dropout": ("llama", {"lora__lora_dropout": 0.2}),
    "bfloat16": ("mistral", {"model__dtype": "bfloat16"}),
}
CHATML = {"data__chat_template": "chatml"}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{name: (name, "completion", {}) for name in (*ARCHITECTURES, *PAIRS)},
    **{name: (architecture, "completion", changes) for name, (architecture, changes) in VARIANTS.items()},
    **{f"{name}-chatml": (name, "chat", CHATML) for name in ("llama", "bloom", "phi", "gpt2", "qwen2")},
}
ADAPTERS = ("bloom", "llama", "mistral", "gemma", "falcon-7b", "phi", "t5", "bfloat16", "llama-chatml")
"""Those that are exported as adapters too."""
SHIPPED = ("bloom", "llama", "mistral", "gemma", "falcon-7b", "phi", "t5", "llama-chatml")
"""The architectures of the shipped recipes, and a chat template."""
FILES = [*((name, kind) for name in SHIPPED for kind in ("f16", "q8_0")), ("llama", "bf16"), ("gemma", "bf16")]
FORMATS = ("bfloat16", "float16")
"""That a float32 run is rounded to."""


@dataclass(frozen=True)
class Exported:
    written: Written
    outside: tuple[Outside, ...]
    checks: dict[str, Any]


@pytest.fixture(scope="module")
def exports(trained_run, tmp_path_factory) -> dict[str, Exported]:
    """Every case, written by Fledge and read by one process without it; a case that is not proven fails here."""
    folder, written = tmp_path_factory.mktemp("families"), {}
    for name, (architecture, fmt, changes) in CASES.items():
        written[name] = write(trained_run(architecture, fmt=fmt, **changes), folder / name)
    for name in ADAPTERS:
        architecture, fmt, changes = CASES[name]
        run = trained_run(architecture, fmt=fmt, **changes)
        written[f"{name} adapter"] = write(run, folder / f"{name}-adapter", to="adapter")
    for name, file_type in FILES:
        architecture, fmt, changes = CASES[name]
        run = trained_run(architecture, fmt=fmt, **changes)
        written[f"{name} {file_type}"] = write(run, folder / f"{name}-{file_type}", to="gguf", dtype=file_type)
    for dtype in FORMATS:
        written[f"llama {dtype}"] = write(trained_run("llama"), folder / f"llama-{dtype}", dtype=dtype)
    found = ask(written)
    return {
        name: Exported(each, found[name], each.draft.prove(each.folder, found[name])) for name, each in written.items()
    }


def test_the_cases_are_all_there(exports):
    assert len(exports) == 11 + 2 + 8 + 5 + 9 + 8 * 2 + 2 + 2


@pytest.mark.parametrize("case", CASES)
def test_a_merged_export_behaves_as_trained_in_plain_transformers(case, exports):
    checks = exports[case].checks
    assert checks["merge"]["max_abs"] < 1e-3 and checks["files"]["differing"] == 0 < checks["files"]["tensors"]
    assert checks["logits"]["positions"] > 100 and checks["logits"]["max_abs"] >= checks["logits"]["mean_abs"]
    assert checks["text"]["prompts"] == len(checks["text"]["answers"]) == 4
    assert checks["text"]["same"] + checks["text"]["ties"] == 4
    assert checks["text"]["same"] == 4 or case == "bfloat16"
    assert checks["effect"]["mean_kl"] > 10 * checks["logits"]["mean_kl"], "the training is no rounding"


@pytest.mark.parametrize("case", CASES)
def test_its_template_its_tokens_and_its_stops_are_those_of_the_training(case, exports):
    checks, (outside,) = exports[case].checks, exports[case].outside
    has_template = case.endswith("-chatml")
    assert (
        checks["tokenizer"]["has_chat_template"] == has_template == (checks["template"]["sha256_exported"] is not None)
    )
    assert checks["template"]["bytes_equal"] and checks["template"]["rendered_equal"] == (
        True if has_template else None
    )
    assert checks["bos"]["expected"] == checks["bos"]["found"] and checks["bos"]["rows"] == 8
    assert ("conversation" in checks["bos"]) == has_template
    assert len(checks["stops"]["eos_token_id"]) == 1 + has_template and outside.stop_ids == {
        *checks["stops"]["eos_token_id"]
    }


@pytest.mark.parametrize("case", [name for name in CASES if name not in PAIRS])
def test_what_is_tied_stays_tied_and_nothing_of_the_adapter_is_left(case, exports):
    folder = exports[case].written.folder
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    head, embedding = plain.get_output_embeddings().weight, plain.get_input_embeddings().weight
    assert (head is embedding) == plain.config.tie_word_embeddings
    assert plain.dtype == (torch.bfloat16 if case == "bfloat16" else torch.float32)
    assert not any("lora" in name or "base_layer" in name for name in plain.state_dict())


@pytest.mark.parametrize("case", ADAPTERS)
def test_an_adapter_in_plain_peft_behaves_as_trained(case, exports):
    checks = exports[f"{case} adapter"].checks
    assert checks["logits"]["max_abs"] < 1e-3 and checks["text"]["same"] == 4
    assert ("float32" in checks) == (case == "bfloat16") and checks["effect"]["mean_kl"] > 0


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_merged_export_can_be_written_in_any_number_format(dtype, exports):
    checks = exports[f"llama {dtype}"].checks
    plain = AutoModelForCausalLM.from_pretrained(exports[f"llama {dtype}"].written.folder, dtype="auto")
    assert plain.dtype == getattr(torch, dtype)
    assert 0 < checks["logits"]["mean_kl"] < checks["logits"]["tolerance"]["mean_kl"]


@pytest.mark.parametrize(("case", "file_type"), FILES)
def test_a_gguf_file_behaves_as_trained_in_a_reader_that_is_not_the_writer(case, file_type, exports):
    export = exports[f"{case} {file_type}"]
    checks = export.checks
    assert [path.name for path in export.written.folder.iterdir()] == [f"model-{file_type}.gguf"]
    assert checks["files"]["differing"] == 0 < checks["files"]["tensors"]
    assert checks["files"]["held_otherwise"] == (5 if case == "gemma" else 0), "norms with 1 added"
    assert checks["effect"]["mean_kl"] > 100 * checks["logits"]["mean_kl"] > 0
    assert checks["text"]["same"] + checks["text"]["ties"] == 4 == checks["text"]["prompts"]
    assert checks["tokenizer"]["words"] == 320 + 2 * case.endswith("chatml") and checks["tokenizer"]["merges"] > 0
    assert (checks["template"]["sha256_exported"] is not None) == case.endswith("chatml")
    assert checks["template"]["bytes_equal"] and checks["bos"]["expected"] == checks["bos"]["found"]
    assert checks["stops"]["tokens"] == ["</s>", "<|im_end|>"][: 1 + case.endswith("chatml")]
    by_transformers = case in ("bloom", "llama", "mistral", "falcon-7b", "llama-chatml")
    assert (checks["logits"]["read_by"] == "transformers") == by_transformers
    assert checks["tokenizer"]["in_transformers"] == ({"texts": 12, "same": 12} if by_transformers else None)


def test_every_stop_token_is_named_for_serving_and_the_template_goes_along(exports):
    out = exports["llama-chatml"].written.folder
    tokenizer = AutoTokenizer.from_pretrained(out)
    settings = json.loads((out / "generation_config.json").read_text())
    ends = tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    assert settings["eos_token_id"] == ends and len(tokenizer) == 322
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    config = json.loads((out / "config.json").read_text())
    assert config["use_cache"] is True and config["vocab_size"] == 322


def test_a_folder_that_is_exported_holds_what_serving_needs(exports):
    names = {path.name for path in Path(exports["llama-chatml"].written.folder).iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
    } <= names
    names = {path.name for path in Path(exports["llama-chatml adapter"].written.folder).iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not names & {"best.json", "state.json", "model.safetensors"}
