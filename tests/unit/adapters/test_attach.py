"""An adapter goes where the recipe says, is trained in float32, and a wrong target is answered with the right names."""

import pytest
import torch

from fledge.adapters.attach import attach
from fledge.adapters.read import read_start
from fledge.adapters.save import save_adapter
from fledge.adapters.skeleton import check_taken
from fledge.config.lora import LoraSection
from fledge.errors import ModelError
from tests.tiny_models import ARCHITECTURES, VOCABULARY
from tests.unit.adapters.builders import adapted, base_of

LINEAR_LAYERS = {
    "bloom": 4, "llama": 7, "mistral": 7, "gemma": 7, "gemma2": 7, "falcon-7b": 4, "falcon-rw": 4, "phi": 6,
    "gpt2": 4, "gpt-neox": 4, "qwen2": 7,
}  # fmt: skip


def adapted_names(model: torch.nn.Module) -> set[str]:
    """Full names of the modules that have an adapter, in the base's words."""
    return {
        name.removeprefix("base_model.model.") for name, module in model.named_modules() if hasattr(module, "lora_A")
    }


def test_every_architecture_is_counted():
    assert set(LINEAR_LAYERS) == set(ARCHITECTURES) and len(LINEAR_LAYERS) == 11


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_linear_means_every_linear_layer_of_every_block_and_not_the_head(architecture, tmp_path):
    base = base_of(architecture, tmp_path)
    names = adapted_names(adapted(base).model)
    assert len(names) == 2 * LINEAR_LAYERS[architecture]
    assert {name.rsplit(".", 1)[-1] for name in names} == set(base.facts.linear_names)
    assert not any("head" in name or "embed_out" in name for name in names)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_list_and_a_regular_expression_choose_what_they_name(architecture, tmp_path):
    first = base_of(architecture, tmp_path).facts.linear_names[0]
    listed = adapted_names(adapted(base_of(architecture, tmp_path), target_modules=(first,)).model)
    assert len(listed) == 2 and all(name.endswith(first) for name in listed)
    matched = adapted(base_of(architecture, tmp_path), target_modules=rf".*\.1\..*{first}").model
    assert adapted_names(matched) == {name for name in listed if ".1." in name}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_unknown_target_is_answered_with_the_nearest_name_and_all_names(architecture, tmp_path):
    base = base_of(architecture, tmp_path)
    near = base.facts.linear_names[0]
    with pytest.raises(ModelError) as caught:
        adapted(base, target_modules=(near[:-1] + "x",))
    message = str(caught.value)
    assert f"did you mean {near}?" in message and "lora.target_modules" in message
    assert all(name in message for name in base.facts.linear_names)


@pytest.mark.parametrize("pattern", [r".*\.nothing", r"q_proj"])
def test_a_regular_expression_that_matches_no_full_name_is_refused(pattern, tmp_path):
    with pytest.raises(ModelError, match="matches no module's full name"):
        adapted(base_of("llama", tmp_path), target_modules=pattern)


def test_an_unknown_module_to_save_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"modules_to_save: no module is named lm_heed\n.*did you mean lm_head\?"):
        adapted(base_of("llama", tmp_path), modules_to_save=("lm_heed",))


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"modules_to_save": ("norm",)}])
def test_what_is_trained_is_float32_on_a_bfloat16_base(options, tmp_path):
    model = adapted(base_of("llama", tmp_path, "bfloat16"), **options).model
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    assert {parameter.dtype for parameter in frozen} == {torch.bfloat16}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_the_rows_of_new_tokens_are_trained_and_they_start_at_the_mean(architecture, tmp_path):
    base = base_of(architecture, tmp_path)
    before = base.model.get_input_embeddings().weight.clone()
    model = adapted(base, new_tokens=(VOCABULARY, VOCABULARY + 1)).model
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name}
    rows = [p for name, p in trained.items() if "trainable_tokens" in name]
    assert {tuple(row.shape) for row in rows} == {(2, 32)}
    assert len(rows) == 1 if base.facts.is_head_tied or architecture == "phi" else len(rows) == 2
    torch.testing.assert_close(rows[0], before.mean(dim=0).expand(2, -1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.get_input_embeddings().weight[:VOCABULARY], before)


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(tmp_path):
    def weights(seed: int) -> list[torch.Tensor]:
        model = adapted(base_of("llama", tmp_path), seed=seed).model
        return [parameter for parameter in model.parameters() if parameter.requires_grad]

    first, again, other = weights(1), weights(1), weights(2)
    assert len(first) == 28
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


class Doubling(torch.nn.Linear):
    """A linear that computes more than a product, as routers do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def doubling_base(folder):
    base = base_of("llama", folder)
    for block in base.model.model.layers:
        block.mlp.up_proj.__class__ = Doubling
    return base


def test_all_linear_beside_a_start_means_what_it_means_for_a_fresh_adapter(tmp_path):
    first = adapted(doubling_base(tmp_path / "base"))
    assert first.left_out == ("up_proj",)
    assert {name.rsplit(".", 1)[-1] for name in adapted_names(first.model)} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"
    }  # fmt: skip
    save_adapter(first, tmp_path / "first", base="base", revision="main")
    some = adapted(doubling_base(tmp_path / "base"), target_modules=("q_proj", "down_proj"))
    save_adapter(some, tmp_path / "some", base="base", revision="main")

    def start_from(name):
        base, start = doubling_base(tmp_path / "base"), read_start(tmp_path / name)
        return attach(base.model, LoraSection(), facts=base.facts, seed=3, start=start)

    again = start_from("first")
    assert adapted_names(again.model) == adapted_names(first.model)
    check_taken(again.model, start=tmp_path / "first")
    with pytest.raises(ModelError, match=r"all-linear is not what the adapter of lora\.init_from has"):
        start_from("some")
