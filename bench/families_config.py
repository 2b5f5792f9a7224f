"""Turns the default configuration of any family of transformers into a small one of the same kind."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

VOCABULARY = 320
WIDTH, HEADS, HEAD = 32, 4, 8
WINDOW = 6
"""Shorter than most rows, so that a window which is forgotten shows."""
MOST_LAYERS = 6

_GROUPS: dict[int | float, str] = {
    VOCABULARY: "vocab_size src_vocab_size tgt_vocab_size decoder_vocab_size vocab_size_per_layer_input "
    "unpadded_vocab_size pronunciation_vocab_size shape_vocab_size",
    WIDTH: "hidden_size d_model n_embd embedding_dim emb_dim word_embed_proj_dim embedding_size lru_width "
    "hidden_size_per_layer_input input_embedding_size output_embedding_size attention_hidden_size q_lora_rank "
    "pronunciation_embed_dim shape_embed_dim o_lora_rank",
    48: "intermediate_size encoder_ffn_dim decoder_ffn_dim ffn_dim ffn_hidden_size d_ff d_inner dff dim_ff "
    "intermediate_size_mlp feed_forward_size n_inner shared_intermediate_size shared_expert_intermediate_size "
    "shared_experts_intermediate_size dense_intermediate_size moe_shared_expert_intermediate_size",
    24: "moe_intermediate_size expert_ffn_hidden_size",
    HEADS: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
    "attention_heads num_encoder_attention_heads num_decoder_attention_heads swa_num_attention_heads "
    "num_experts n_routed_experts num_local_experts moe_num_experts index_n_heads mamba_n_heads mamba_num_heads "
    "linear_num_value_heads n_mamba_heads linear_num_heads loop_gate_rank laurel_rank adapter_rank gated_norm_rank "
    "zero_expert_num",
    2: "num_key_value_heads swa_num_key_value_heads num_kv_heads linear_num_key_heads num_experts_per_tok moe_topk "
    "moe_k n_group num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers "
    "num_decoder_layers num_encoder_layers num_blocks mamba_n_groups n_groups mamba_ngroups moe_num_experts_per_tok",
    1: "n_shared_experts num_shared_experts moe_num_shared_experts first_k_dense_replace num_dense_layers "
    "num_nextn_predict_layers topk_group",
    16: "head_dim kv_lora_rank swa_head_dim index_head_dim kv_channels d_rel mamba_chunk_size chunk_size "
    "mamba_dt_rank time_step_rank rel_extent",
    HEAD: "qk_rope_head_dim qk_nope_head_dim v_head_dim d_kv dim_head d_head mamba_d_state state_size ssm_state_size "
    "linear_key_head_dim linear_value_head_dim linear_head_dim mamba_d_head mamba_head_dim attention_head_size "
    "index_topk relative_attention_num_buckets num_buckets position_bias_num_buckets",
    WINDOW: "sliding_window sliding_window_size window_size attention_window_size local_attention attention_chunk_size",
    512: "max_position_embeddings n_positions n_ctx max_seq_len max_target_positions max_source_positions "
    "max_encoder_position_embeddings max_decoder_position_embeddings context_length",
}
_SMALL = {name: value for value, names in _GROUPS.items() for name in names.split()}
_SPREAD = {"initializer_range": 0.15, "init_std": 0.15, "initializer_factor": 0.5, "embed_init_std": 0.15}
"""So that attention looks somewhere."""
_IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "decoder_start_token_id": 2}
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks")
_KINDS = ("layer_types", "mlp_layer_types", "layers_block_type", "indexer_types")
_NESTED = ("text_config", "attn_config", "ffn_config")


def small_config(model_type: str, changes: Mapping[str, Any]) -> PreTrainedConfig:
    """A configuration of a few hundred kilobytes, `changes` included. Every kind of layer of the default is there.

    Raises whatever the configuration's class raises where a value does not fit.
    """
    cls = CONFIG_MAPPING[model_type]
    return cls(**small_values(cls) | dict(changes))


def small_values(cls: type[PreTrainedConfig]) -> dict[str, Any]:
    """The small values of a configuration's own fields."""
    try:
        default = cls()
    except ValueError:  # a default that the class itself refuses: its fields are known all the same
        default = None
    known = _fields(cls, default)
    values = {name: value for name, value in (_SMALL | _SPREAD | _IDS).items() if name in known}
    stated = {} if default is None else vars(default)
    values |= {name: 0.0 for name, value in stated.items() if "dropout" in name and isinstance(value, float)}
    values |= _layers(stated, values)
    if "kv_lora_rank" in known:  # keys come out of a latent: every head has its own, and the rotary part is apart
        latent = {"num_key_value_heads": HEADS, "head_dim": HEAD}
        values |= {name: value for name, value in latent.items() if name in known}
    for name in _NESTED:
        if isinstance(stated.get(name), PreTrainedConfig):
            values[name] = small_values(type(stated[name]))
    return values


def _fields(cls: type[PreTrainedConfig], default: PreTrainedConfig | None) -> set[str]:
    """What the class takes, under the names that its own code uses."""
    names = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    return (names | set(vars(default) if default is not None else ())) - set(cls.attribute_map)


def _layers(stated: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """One layer of each kind that the default has, in its order; two where all are alike."""
    lists = {name: stated[name] for name in _KINDS if isinstance(stated.get(name), list | tuple)}
    count = next((name for name in _COUNTS if name in values), None)
    if not lists or count is None:
        return {}
    size = min(len(kinds) for kinds in lists.values())
    if size == 0:
        return {}
    chosen = _one_of_each(list(zip(*lists.values(), strict=False)))
    return {name: [kinds[place] for place in chosen] for name, kinds in lists.items()} | {count: len(chosen)}


def _one_of_each(kinds: Sequence[tuple[str, ...]]) -> list[int]:
    """Places of the first layer of each kind."""
    places = [place for place, kind in enumerate(kinds) if kinds.index(kind) == place][:MOST_LAYERS]
    return places if len(places) > 1 else [0, min(1, len(kinds) - 1)]
