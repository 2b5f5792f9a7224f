"""What is exported is what was trained, or nothing is there."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fledge.adapters import merge as merging
from fledge.commands.export import export
from fledge.commands.open_run import load_tuned, open_run
from fledge.errors import ProofError, RunError
from fledge.exporting import folder as exporting
from fledge.rundir import RunDir
from tests.tiny_models import ARCHITECTURES

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
CASES = {
    **{name: (name, "completion", {}) for name in ARCHITECTURES},
    **{name: (architecture, "completion", changes) for name, (architecture, changes) in VARIANTS.items()},
    **{f"{name}-chatml": (name, "chat", CHATML) for name in ("llama", "bloom", "phi", "gpt2", "qwen2")},
}


@pytest.fixture
def run_of(trained_run):
    def find(case: str) -> Path:
        architecture, fmt, changes = CASES[case]
        return trained_run(architecture, fmt=fmt, **changes)

    return find


def logits_of(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits.float()


def is_close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    atol = 1e-4 if dtype == torch.float32 else 0.06 * expected.abs().max().item()
    return torch.allclose(found, expected, rtol=0, atol=atol)


def test_the_cases_are_all_there():
    assert len(CASES) == 11 + 8 + 5


@pytest.mark.parametrize("case", CASES)
def test_a_merged_export_behaves_as_trained_in_plain_transformers(case, run_of, tmp_path):
    run, out = run_of(case), tmp_path / "out"
    exported = export(run, out, to="hf")
    tuned = load_tuned(open_run(run)).model
    tokenizer = AutoTokenizer.from_pretrained(out)
    plain = AutoModelForCausalLM.from_pretrained(out, dtype="auto").eval()
    ids = torch.tensor([[5, 9, 33, 210, 77, len(tokenizer) - 1]])
    assert plain.dtype == next(iter(tuned.get_base_model().parameters())).dtype
    assert is_close(logits_of(plain, ids), logits_of(tuned, ids), plain.dtype)
    with tuned.disable_adapter():
        assert not is_close(logits_of(plain, ids), logits_of(tuned, ids), torch.float32)
    base = tuned.get_base_model()
    is_tied = base.config.tie_word_embeddings
    assert (plain.get_output_embeddings().weight is plain.get_input_embeddings().weight) == is_tied
    checks = exported.certificate["checks"]
    assert checks["text"]["prompts"] == 4 and checks["text"]["same"] + checks["text"]["ties"] == 4
    assert checks["merge"]["max_abs"] < 1e-3 and checks["effect"]["mean_kl"] > 10 * checks["logits"]["mean_kl"]
    assert not any("lora" in name or "base_layer" in name for name in plain.state_dict())


@pytest.mark.parametrize("case", ["bfloat16"])
def test_an_adapter_export_is_proven_in_a_process_without_fledge(case, run_of, tmp_path):
    run, out = run_of(case), tmp_path / "out"
    exported = export(run, out, to="adapter")
    names = {path.name for path in out.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "certificate.json"} <= names
    assert not names & {"best.json", "state.json", "model.safetensors"}
    checks = exported.certificate["checks"]
    assert checks["logits"]["max_abs"] < 1e-3 and checks["text"] == {"prompts": 4, "same": 4, "ties": 0}
    assert checks["effect"]["mean_kl"] > 0 and checks["float32"]["tolerance"]["mean_kl"] == 1e-7


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_light_adapter_that_is_lost_on_its_way_fails(dtype, trained_run, tmp_path, monkeypatch):
    run = trained_run("llama", model__dtype=dtype, train__learning_rate=3e-4)
    kept = export(run, tmp_path / "kept", to="adapter").certificate["checks"]
    assert kept["effect"]["mean_kl"] < 1e-2, "light: rounding to bfloat16 may move the model further"
    change_adapter_config(monkeypatch, lora_alpha=0)
    with pytest.raises(ProofError, match="plain peft"):
        export(run, tmp_path / "lost", to="adapter")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_certificate_says_what_was_compared_and_names_every_file(run_of, tmp_path):
    run, out = run_of("llama"), tmp_path / "out"
    exported = export(run, out, to="hf")
    certificate = json.loads((out / "certificate.json").read_text())
    assert certificate == exported.certificate == json.loads((run / "certificate.json").read_text())
    assert certificate["sha256"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.iterdir()
        if path.name != "certificate.json"
    }
    assert set(certificate["checks"]) == {"merge", "files", "logits", "text", "tokenizer", "stops", "effect"}
    assert (
        certificate["adapter"]["sha256"]
        == hashlib.sha256((run / "adapter/adapter_model.safetensors").read_bytes()).hexdigest()
    )
    assert any("greedy text: 4 of 4" in line for line in exported.findings())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_merged_export_can_be_written_in_any_number_format(dtype, run_of, tmp_path):
    export(run_of("llama"), tmp_path / "out", to="hf", dtype=dtype)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == getattr(torch, dtype)


def test_every_stop_token_is_named_for_serving_and_the_template_goes_along(run_of, tmp_path):
    export(run_of("llama-chatml"), tmp_path / "out", to="hf")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    settings = json.loads((tmp_path / "out/generation_config.json").read_text())
    ends = tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    assert settings["eos_token_id"] == ends and len(tokenizer) == 322
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["use_cache"] is True and config["vocab_size"] == 322


def test_weights_can_be_read_by_whoever_can_read_the_rest(run_of, tmp_path):
    export(run_of("llama"), tmp_path / "out", to="hf")
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1


def test_the_best_adapter_is_exported_where_it_is_asked_for(trained_run, tmp_path):
    run = trained_run("llama", train__max_steps=4, evaluate__every_steps=1)
    best = hashlib.sha256((run / "checkpoints/best/adapter_model.safetensors").read_bytes()).hexdigest()
    exported = export(run, tmp_path / "out", to="hf", which="best")
    assert exported.certificate["adapter"] == {"which": "best", "sha256": best}


def test_an_export_needs_no_data(run_of, tmp_path):
    original = run_of("llama")
    shutil.copytree(original, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    rows = original.parent / "rows.jsonl"
    run.recipe.write_text(run.recipe.read_text().replace(str(rows), str(rows.with_name("gone.jsonl"))))
    assert export(run.root, tmp_path / "out").certificate["checks"]["text"]["prompts"] == 4


class Sabotage:
    """Ways in which an export could go wrong unnoticed."""

    @staticmethod
    def merge_nothing(monkeypatch):
        monkeypatch.setattr(exporting, "merge", lambda model: model.unload())

    @staticmethod
    def merge_twice(monkeypatch):
        def twice(model):
            for module in model.modules():
                if hasattr(module, "lora_A"):
                    module.scaling["default"] *= 2
            return merging.merge(model)

        monkeypatch.setattr(exporting, "merge", twice)

    @staticmethod
    def flip_a_bit(monkeypatch):
        write = exporting.write_model

        def spoil(model, tokenizer, *, folder):
            write(model, tokenizer, folder=folder)
            path = folder / "model.safetensors"
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)

        monkeypatch.setattr(exporting, "write_model", spoil)

    @staticmethod
    def lose_a_stop_token(monkeypatch):
        write = exporting.write_model

        def spoil(model, tokenizer, *, folder):
            write(model, tokenizer, folder=folder)
            (folder / "generation_config.json").write_text('{"eos_token_id": 0}')

        monkeypatch.setattr(exporting, "write_model", spoil)

    @staticmethod
    def change_the_template(monkeypatch):
        write = exporting.write_model

        def spoil(model, tokenizer, *, folder):
            write(model, tokenizer, folder=folder)
            (folder / "chat_template.jinja").write_text("{{ messages }}")

        monkeypatch.setattr(exporting, "write_model", spoil)


@pytest.mark.parametrize("how", [name for name in vars(Sabotage) if not name.startswith("_")])
def test_an_export_that_is_not_what_was_trained_fails_and_leaves_nothing(how, run_of, tmp_path, monkeypatch):
    getattr(Sabotage, how)(monkeypatch)
    with pytest.raises(ProofError) as caught:
        export(run_of("llama"), tmp_path / "out", to="hf")
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def change_adapter_config(monkeypatch, **changes) -> None:
    """What is copied next says something else than what was trained."""
    copy = shutil.copyfile

    def spoil(source, target):
        copy(source, target)
        if str(target).endswith("adapter_config.json"):
            content = json.loads(Path(target).read_text())
            Path(target).write_text(json.dumps(content | changes))

    monkeypatch.setattr(exporting.shutil, "copyfile", spoil)


def test_an_adapter_that_changes_on_its_way_fails_and_leaves_nothing(run_of, tmp_path, monkeypatch):
    change_adapter_config(monkeypatch, lora_alpha=16)
    with pytest.raises(ProofError, match="plain peft"):
        export(run_of("llama"), tmp_path / "out", to="adapter")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["hf", "adapter"])
def test_a_place_that_is_taken_is_refused_and_left_alone(to, run_of, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    for name in ("file", "folder"):
        with pytest.raises(RunError, match="not there yet"):
            export(run_of("llama"), tmp_path / name, to=to)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "mine").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_an_error_in_words_before_any_work(run_of, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(exporting, "measure", None)
    with pytest.raises(RunError, match=r"cannot be written(.|\n)*another folder"):
        export(run_of("llama"), tmp_path / "file" / "out", to="hf")


def test_the_empty_folder_that_one_is_in_can_be_exported_to(run_of, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    run = run_of("llama").resolve()
    monkeypatch.chdir(tmp_path / "out")
    exported = export(run, ".", to="adapter")
    assert exported.out == tmp_path / "out" and (tmp_path / "out" / "certificate.json").is_file()


def test_what_comes_to_lie_there_meanwhile_is_left_alone(run_of, tmp_path, monkeypatch):
    measure = exporting.measure

    def meanwhile(model, probe):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("mine")
        return measure(model, probe)

    monkeypatch.setattr(exporting, "measure", meanwhile)
    with pytest.raises(RunError, match="something in this folder already"):
        export(run_of("llama"), tmp_path / "out", to="hf")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_run_folder_that_cannot_be_written_hinders_no_export(run_of, tmp_path):
    shutil.copytree(run_of("llama"), tmp_path / "run")
    (tmp_path / "run/certificate.json").unlink(missing_ok=True)
    (tmp_path / "run/certificate.json/in-the-way").mkdir(parents=True)
    exported = export(tmp_path / "run", tmp_path / "out", to="adapter")
    assert not exported.is_filed and exported.as_json()["is_filed"] is False
    assert any("run folder cannot be written" in line for line in exported.findings())
    assert (tmp_path / "out/certificate.json").is_file()


def test_a_merged_export_is_read_back_with_the_trust_that_its_base_was_given(trained_run, tmp_path, monkeypatch):
    read, load = [], exporting.load_base
    monkeypatch.setattr(
        exporting, "load_base", lambda config, *, device: read.append(config) or load(config, device=device)
    )
    export(trained_run("llama", model__trust_remote_code=True), tmp_path / "out", to="hf")
    assert [config.trust_remote_code for config in read] == [True]
