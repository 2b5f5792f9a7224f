"""Merging tensor by tensor gives the bits of peft's merge of the whole model in float32, rounded once."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fledge.adapters.merge import LowRank, apart, merge, merged
from fledge.commands.export import export, probe_of, source_of
from fledge.commands.open_run import OpenRun, load_tuned, open_run
from fledge.errors import ProofError
from fledge.exporting import merged as merged_model
from fledge.exporting import merging
from fledge.exporting.merged import LAYER_LIMIT, merged_onto, outline_of
from fledge.exporting.merging import merge_closest
from fledge.exporting.trained import Source, measure_trained
from fledge.runtime.precision import TORCH_DTYPES
from tests.unit.exporting.drafts import ask, write

SHIPPED = ("bloom", "llama", "mistral", "gemma", "falcon-7b", "phi", "t5")
"""The architectures of the shipped recipes."""
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dora": ("llama", {"lora__use_dora": True}),
    "rslora": ("llama", {"lora__use_rslora": True}),
    "pissa": ("llama", {"lora__init_lora_weights": "pissa"}),
    "conv1d": ("gpt2", {}),
    "conv1d-dora": ("gpt2", {"lora__use_dora": True}),
    "whole-head": ("llama", {"lora__modules_to_save": ["lm_head"]}),
    "whole-norm": ("mistral", {"lora__modules_to_save": ["norm"]}),
    "embedding": ("llama", {"lora__target_modules": ["embed_tokens", "q_proj"]}),
    "tied": ("qwen2", {}),
    "pair": ("bart", {}),
}
NEW = ("llama", "bloom", "phi", "gpt2", "qwen2")
"""With rows for new tokens: in a head of its own, in a tied one, beside a bias."""
KINDS = ("int8", "nf4")
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{name: (name, "completion", {}) for name in SHIPPED},
    **{
        f"{name}-{kind}": (name, "completion", {"model__quantization": kind})
        for name in (*SHIPPED, "gpt2")
        for kind in KINDS
    },
    **{name: (architecture, "completion", changes) for name, (architecture, changes) in OTHERS.items()},
    **{f"{name}-new": (name, "chat", {"data__chat_template": "chatml"}) for name in NEW},
}

FORMATS = ("bfloat16", "float16")


def bases_of(opened: OpenRun) -> tuple[str, ...]:
    return ("full", "dequantized") if opened.recipe.model.quantization != "none" else ("full",)


def differing(expected: Any, found: Any) -> list[str]:
    """Names of tensors whose bits or number formats are not the same."""
    assert expected.keys() == found.keys()
    return [
        name
        for name, tensor in expected.items()
        if tensor.dtype != found[name].dtype or not torch.equal(tensor, found[name])
    ]


def test_the_cases_are_all_there():
    assert len(CASES) == 7 + 8 * 2 + 10 + 5


@pytest.mark.parametrize("case", CASES)
def test_merging_tensor_by_tensor_gives_the_bits_of_the_whole_merge(case, trained_run):
    architecture, fmt, changes = CASES[case]
    opened = open_run(trained_run(architecture, fmt=fmt, **changes))
    source = source_of(opened, "last")
    outline, updates = outline_of(source)
    for base in bases_of(opened):
        whole = merge(load_tuned(opened, dtype="float32", kind=base).model).state_dict()
        ours = merged_onto(source, base, outline=outline, updates=updates)
        assert updates and set(ours.names()) == whole.keys()
        assert differing(whole, {name: ours.tensor(name) for name in ours.names()}) == []
        assert ours.check_layers()["layers"] > 0
        for dtype in FORMATS:
            model = ours.model(dtype)
            assert not model.training and {each.dtype for each in model.parameters()} == {TORCH_DTYPES[dtype]}
            rounded = {name: tensor.to(TORCH_DTYPES[dtype]) for name, tensor in whole.items()}
            assert differing(rounded, model.state_dict()) == []


@pytest.mark.parametrize(
    ("case", "to", "dtype"),
    [
        ("llama", "hf", "bfloat16"),
        ("llama-nf4", "hf", "float16"),
        ("t5-int8", "hf", "bfloat16"),
        ("llama-new", "hf", "float32"),
        ("gemma-nf4", "gguf", "bf16"),
        ("t5", "gguf", "f16"),
        ("llama-int8", "gguf", "q8_0"),
    ],
)
def test_an_export_without_room_for_float32_has_the_same_bytes(case, to, dtype, trained_run, tmp_path, monkeypatch):
    architecture, fmt, changes = CASES[case]
    run = trained_run(architecture, fmt=fmt, **changes)
    write(run, tmp_path / "roomy", to=to, dtype=dtype)
    monkeypatch.setattr(merging, "available_bytes", lambda device: 0)
    write(run, tmp_path / "lean", to=to, dtype=dtype)
    names = sorted(path.name for path in (tmp_path / "roomy").iterdir())
    assert any(name.endswith((".safetensors", ".gguf")) for name in names)
    assert names == sorted(path.name for path in (tmp_path / "lean").iterdir())
    for name in names:
        assert (tmp_path / "roomy" / name).read_bytes() == (tmp_path / "lean" / name).read_bytes()


def test_without_room_no_model_is_loaded_in_float32_and_the_choice_says_what_it_was_measured_in(
    trained_run, monkeypatch
):
    opened = open_run(trained_run("llama", model__quantization="nf4", model__dtype="bfloat16"))
    whole, probe, loads = source_of(opened, "last"), probe_of(opened), []
    source = replace(whole, load=lambda dtype, onto: loads.append((dtype, onto)) or whole.load(dtype, onto))
    learnt = measure_trained(source, probe)
    roomy = merge_closest(source, learnt, probe=probe, asked="auto", dtype="bfloat16").checks
    assert loads == [("bfloat16", "trained"), ("float32", "full"), ("float32", "dequantized")]
    assert roomy["merge"]["how"] == "logits" and roomy["choice"]["in"] == "float32"
    monkeypatch.setattr(merging, "available_bytes", lambda device: 0)
    lean = merge_closest(source, learnt, probe=probe, asked="auto", dtype="bfloat16").checks
    assert len(loads) == 3
    assert lean["choice"]["in"] == "bfloat16" and lean["choice"]["onto"] == "dequantized"
    assert lean["choice"]["dequantized"]["mean_kl"] < lean["choice"]["full"]["mean_kl"]
    assert lean["merge"] == {
        "how": "layers",
        "layers": 2 * 7,
        "relative": lean["merge"]["relative"],
        "tolerance": {"relative": LAYER_LIMIT},
    }
    assert 0 < lean["merge"]["relative"] < LAYER_LIMIT / 5


def test_an_export_without_room_for_float32_is_proven_and_says_how(trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "available_bytes", lambda device: 0)
    run = trained_run("llama", model__quantization="nf4", model__dtype="bfloat16")
    exported = export(run, tmp_path / "out", to="hf")
    assert exported.certificate["limits"]["merge"] == {"relative": LAYER_LIMIT}
    assert any("products of 14 layers" in line for line in exported.findings())
    page = (tmp_path / "out" / "certificate.html").read_text()
    assert "each of the 14 merged layers" in page and "measured in bfloat16" in page


@pytest.fixture(scope="module")
def lean_files(trained_run, tmp_path_factory):
    """GGUF files that are written, and read back, without room for float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "available_bytes", lambda device: 0)
        folder = tmp_path_factory.mktemp("lean")
        runs = {name: trained_run(CASES[name][0], fmt=CASES[name][1], **CASES[name][2]) for name, _ in FILES}
        drafts = {each: write(runs[each[0]], folder / "-".join(each), to="gguf", dtype=each[1]) for each in FILES}
    found = ask(drafts)
    return {each: written.draft.prove(written.folder, found[each]) for each, written in drafts.items()}


FILES = (("llama-nf4", "bf16"), ("llama", "q8_0"), ("gemma", "f16"), ("bloom", "q8_0"), ("t5", "f16"))


@pytest.mark.parametrize("case", FILES)
def test_a_gguf_file_is_read_back_without_room_for_float32_too(case, lean_files):
    checks = lean_files[case]
    assert checks["logits"]["in"] == ("float16" if case[1] == "f16" else "bfloat16")
    assert checks["logits"]["read_by"] == "a script that comes with Fledge"
    assert checks["files"]["differing"] == 0 < checks["files"]["tensors"]
    assert checks["files"]["held_otherwise"] < checks["files"]["tensors"] / 4
    assert checks["merge"]["how"] == "layers"


SPOILT = {
    "left away": lambda weight, update, **how: weight,
    "done twice": lambda weight, update, **how: merged(merged(weight, update, **how), update, **how),
    "rounded before": lambda weight, update, **how: merged(weight.bfloat16().float(), update, **how),
    "rounded after": lambda weight, update, **how: merged(weight, update, **how).bfloat16().float(),
}


@pytest.mark.parametrize("to", ["hf", "gguf"])
@pytest.mark.parametrize("how", SPOILT)
def test_a_layer_that_is_merged_wrongly_fails_without_room_too(how, to, trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "available_bytes", lambda device: 0)
    monkeypatch.setattr(merged_model, "merged", SPOILT[how])
    with pytest.raises(ProofError, match=r"merging: the products of .* differ"):
        export(trained_run("llama"), tmp_path / "out", to=to)
    assert list(tmp_path.iterdir()) == []


def low_rank(*, has_magnitude: bool, size: float = 1.0) -> LowRank:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(*shape, generator=generator) for shape in ((4, 48), (32, 4)))
    return LowRank(a * size, b, 2.0, torch.rand(32, generator=generator) + 0.5 if has_magnitude else None)


@pytest.mark.parametrize("has_magnitude", [False, True])
@pytest.mark.parametrize("is_turned", [False, True])
def test_a_layers_products_before_and_after_merging_differ_by_roundings_alone(has_magnitude, is_turned):
    update, weight = low_rank(has_magnitude=has_magnitude), torch.randn(32, 48)
    weight = weight.T.contiguous() if is_turned else weight
    after = merged(weight.clone(), update, name="w", is_turned=is_turned)
    assert apart(update, before=weight, after=after, is_turned=is_turned) < 2e-7
    light = low_rank(has_magnitude=has_magnitude, size=1e-4)
    after = merged(weight.clone(), light, name="w", is_turned=is_turned)
    assert apart(light, before=weight, after=after, is_turned=is_turned) < 2e-7
    if not has_magnitude:
        assert apart(light, before=weight, after=weight, is_turned=is_turned) > 10 * LAYER_LIMIT, (
            "a light adapter that is lost"
        )


@pytest.mark.parametrize("has_magnitude", [False, True])
def test_the_check_of_a_layer_sees_a_weight_that_is_no_number(has_magnitude):
    update, weight = low_rank(has_magnitude=has_magnitude), torch.randn(32, 48)
    broken = weight.clone()
    broken[3, 5] = float("nan")
    with pytest.raises(ProofError, match="w would not be finite"):
        merged(broken.clone(), update, name="w", is_turned=False)
    assert not apart(update, before=weight, after=broken, is_turned=False) <= LAYER_LIMIT


def changed_adapter(run: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Source:
    """The run's source, its adapter's tensors changed."""
    source = source_of(open_run(run), "last")
    shutil.copytree(source.adapter, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    return replace(source, adapter=folder)


def lose_half(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[next(name for name in tensors if "lora_B" in name)]


def add_one(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.layers.9.mlp.up_proj.weight"] = torch.zeros(2, 2)


def widen_one(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name] = torch.zeros(tensors[name].shape[0] + 1, tensors[name].shape[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lose_half, "do not go together"),
        (add_one, r"tensors that its base has not, the first model.layers.9"),
        (widen_one, "cannot be merged into model.layers"),
    ],
)
def test_nothing_of_an_adapter_is_left_out_in_silence(change, words, trained_run, tmp_path):
    source = changed_adapter(trained_run("llama"), tmp_path / "adapter", change)
    with pytest.raises(ProofError, match=words):
        outline, updates = outline_of(source)
        merged_onto(source, "full", outline=outline, updates=updates).check_layers()
