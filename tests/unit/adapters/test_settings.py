"""adapter_config.json says what stands at no default, so that older versions of peft read it."""

from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig

from fledge.adapters.settings import for_others, said_settings

CHOSEN = st.fixed_dictionaries(
    {"r": st.integers(1, 64), "lora_alpha": st.integers(1, 64)},
    optional={
        "use_rslora": st.booleans(),
        "use_dora": st.booleans(),
        "bias": st.sampled_from(["none", "all"]),
        "target_modules": st.sampled_from([["q_proj"], "all-linear"]),
        "modules_to_save": st.sampled_from([None, ["norm"]]),
        "rank_pattern": st.sampled_from([{}, {"q_proj": 3}]),
        "trainable_token_indices": st.sampled_from([None, [1, 2]]),
    },
)


@given(CHOSEN)
def test_what_is_left_out_is_what_peft_takes_without_it(chosen):
    config = LoraConfig(task_type="CAUSAL_LM", **chosen)
    said = said_settings(config.to_dict())
    assert "peft_version" not in said
    again = LoraConfig(**{name: value for name, value in said.items() if name != "peft_type"})
    assert asdict(again) == asdict(config)


def test_keys_that_older_versions_do_not_know_are_not_there():
    said = said_settings(LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM").to_dict())
    assert set(said) == {
        *("peft_type", "task_type", "inference_mode", "r", "lora_alpha", "lora_dropout", "target_modules")
    }


def test_others_get_a_base_that_they_can_load_or_none():
    settings = {"peft_type": "LORA", "base_model_name_or_path": "/gone/base", "revision": "main", "r": 4}
    assert for_others(settings, base=None) == {"base_model_name_or_path": None, "peft_type": "LORA", "r": 4}
    named = for_others(settings, base="org/base")
    assert named["base_model_name_or_path"] == "org/base" and named["revision"] == "main"
