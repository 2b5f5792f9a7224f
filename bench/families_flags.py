"""Tables of bench/families.py: what single families need to be small, and the odd flags of published configurations."""

from typing import Any

Changes = dict[str, Any]

FAMILIES: dict[str, Changes] = {
    "bailing_hybrid": {"n_group": 1, "topk_group": 1, "num_experts": 4, "num_experts_per_tok": 2},
    "bamba": {"mamba_d_head": 16, "attn_layer_indices": [1], "num_hidden_layers": 3},
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
            for kind in ("full_attention", "sliding_attention")
        },
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"num_key_value_heads": 4},
    "falcon": {"new_decoder_architecture": False, "multi_query": True, "parallel_attn": True, "bias": False},
    "falcon_h1": {"mamba_d_head": 16, "mamba_d_ssm": 64},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "intermediate_size": 48,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {"mamba_d_head": 16, "layer_types": ["linear_attention", "full_attention"]},
    "helium": {"head_dim": 8},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"n_group": 1, "topk_group": 1, "num_experts": 4, "num_experts_per_tok": 2},
    "led": {"attention_window": [8, 8]},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"], "num_hidden_layers": 3},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_hidden_layers": 3},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "nemotron_h": {"mamba_num_heads": 8},
    "pegasus_x": {"block_size": 8, "num_global_tokens": 4},
    "prophetnet": {"relative_max_distance": 16},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "axial_pos_shape": [16, 32],
        "axial_pos_embds_dim": [16, 16],
        "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "num_buckets": 4,
        "hash_seed": 1,
    },
    "rembert": {"output_embedding_size": 48},
    "roformer": {"rotary_value": False},
    "xlm": {"causal": True, "n_langs": 1},
    "xlnet": {"attn_type": "uni", "d_head": 8},
    "xmod": {"default_language": "en_XX"},
    "xlstm": {"chunk_size": 64},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "mamba_dt_rank": 4,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
    },
    "zamba2": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "mamba_headdim": 8,
        "n_mamba_heads": 8,
        "mamba_ngroups": 1,
        "num_key_value_heads": 4,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""By family: what the general way of bench/families_config.py does not find."""

_ROPE = {"rope_theta": 10000.0}
_SHORT = {"original_max_position_embeddings": 24}
ROPES: dict[str, Changes] = {
    "linear": _ROPE | {"rope_type": "linear", "factor": 4.0},
    "dynamic": _ROPE | {"rope_type": "dynamic", "factor": 4.0},
    "yarn": _ROPE | _SHORT | {"rope_type": "yarn", "factor": 4.0},
    "longrope": _ROPE
    | _SHORT
    | {"rope_type": "longrope", "factor": 4.0, "short_factor": [1.0] * 8, "long_factor": [1.5 + n for n in range(8)]},
    "llama3": _ROPE | _SHORT | {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "partial": _ROPE | {"rope_type": "default", "partial_rotary_factor": 0.5},
}
_ROPED = ("llama", "qwen2", "qwen3", "mistral", "phi3", "olmo2", "gpt_oss", "granite", "deepseek_v3", "qwen3_moe")


_WIDE_HEADS = ("llama", "mistral", "qwen3")
"""Their heads are 16 wide, the others' 8; a factor for each pair."""


def _roped(family: str, name: str) -> Changes:
    """A kind of rope on positions so few that rows are longer."""
    pairs = 8 if family in _WIDE_HEADS else 4
    rope = {key: value[:pairs] if isinstance(value, list) else value for key, value in ROPES[name].items()}
    apart = _SHORT if family == "phi3" else {}  # beside rope_parameters, as published
    return apart | {"rope_parameters": rope, "max_position_embeddings": 24 if name == "dynamic" else 96}


def _rope_variants() -> dict[str, Changes]:
    kinds = dict.fromkeys(_ROPED, ("dynamic", "yarn", "longrope"))
    kinds |= {
        "llama": tuple(ROPES),
        "phi3": ("longrope",),
        "phi": ("dynamic", "partial"),
        "deepseek_v3": ("yarn",),
        "gpt_oss": ("yarn",),
    }
    return {f"{family}+rope-{name}": _roped(family, name) for family, names in kinds.items() for name in names}


_BOTH = {"layer_types": ["full_attention", "sliding_attention"]}
VARIANTS: dict[str, Changes] = {
    "llama+bias": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "llama+one-kv-head": {"num_key_value_heads": 1},
    "mistral+no-window": {"sliding_window": None},
    "mistral+tied": {"tie_word_embeddings": True},
    "qwen2+window": {"use_sliding_window": True, "max_window_layers": 1},
    "qwen2+tied": {"tie_word_embeddings": True},
    "qwen2_moe+window": {"use_sliding_window": True, "max_window_layers": 1},
    "qwen2_moe+dense-first": {"mlp_only_layers": [0], "norm_topk_prob": True},
    "qwen3+window": {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3+bias": {"attention_bias": True},
    "qwen3_moe+window": {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3_moe+sparse-step": {"decoder_sparse_step": 2},
    "mixtral+window": {"sliding_window": 6},
    "phi+qk-norm": {"qk_layernorm": True},
    "phi3+window": {"sliding_window": 6},
    "phi3+no-window": {"sliding_window": None},
    "phimoe+no-bias": {"attention_bias": False, "lm_head_bias": False},
    "gemma2+no-softcap": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    "gemma3_text+bidirectional-off": {"use_bidirectional_attention": False, "final_logit_softcapping": 30.0},
    "gemma3_text+linear": {"num_hidden_layers": 2},
    "falcon+alibi": {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True, "num_kv_heads": 4},
    "falcon+new-decoder": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon+sequential": {"multi_query": False, "num_kv_heads": 4, "parallel_attn": False, "bias": True},
    "bloom+residual-after-norm": {"apply_residual_connection_post_layernorm": True},
    "mpt+no-alibi": {"attn_config": {"alibi": False}},
    "mpt+clip": {"attn_config": {"clip_qkv": 4.0, "alibi": True}},
    "gpt_neox+sequential": {"use_parallel_residual": False},
    "gpt_neox+all-rotary": {"rotary_pct": 1.0},
    "gpt_neox+tied": {"tie_word_embeddings": True},
    "gpt2+scaled": {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    "gpt_bigcode+all-heads": {"multi_query": False},
    "gpt_neo+local": {"attention_types": [[["local"], 2]]},
    "stablelm+parallel": {"use_parallel_residual": True, "qk_layernorm": True},
    "stablelm+bias": {"use_qkv_bias": True},
    "starcoder2+no-window": {"sliding_window": None},
    "opt+narrow": {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "opt+after": {"do_layer_norm_before": False},
    "biogpt+unscaled": {"scale_embedding": False},
    "xglm+unscaled": {"scale_embedding": False},
    "cohere+qk-norm": {"use_qk_norm": True, "logit_scale": 0.5},
    "cohere2+bias": {"attention_bias": True, "logit_scale": 0.5},
    "olmo+clip": {"clip_qkv": 4.0},
    "olmoe+clip": {"clip_qkv": 4.0, "norm_topk_prob": True},
    "granite+scaled": {
        "embedding_multiplier": 3.0,
        "logits_scaling": 2.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.2,
    },
    "granitemoe+scaled": {"embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.5},
    "granitemoehybrid+no-shared": {"shared_intermediate_size": 48, "position_embedding_type": "rope"},
    "deepseek_v2+no-q-lora": {"q_lora_rank": None, "first_k_dense_replace": 1},
    "deepseek_v2+greedy": {"topk_method": "greedy", "n_group": 1, "topk_group": 1},
    "deepseek_v3+no-q-lora": {"q_lora_rank": None},
    "deepseek_v3+interleaved": {"rope_interleave": False},
    "deepseek_v32+more": {"index_topk": 4},
    "glm+bias": {"attention_bias": True},
    "glm4_moe+qk-norm": {"use_qk_norm": True},
    "smollm3+no-rope": {"no_rope_layers": [1, 0], "no_rope_layer_interval": 2},
    "llama4_text+qk-norm-off": {"use_qk_norm": False, "attn_temperature_tuning": False},
    "llama4_text+temperature": {"attn_temperature_tuning": True, "floor_scale": 8, "attn_scale": 0.3},
    "exaone4+no-window": {"sliding_window": None, "layer_types": ["full_attention"] * 2, "num_hidden_layers": 2},
    "ernie4_5+bias": {"use_bias": True, "tie_word_embeddings": False},
    "ernie4_5_moe+dense-first": {"moe_layer_start_index": 1},
    "gpt_oss+full": {"layer_types": ["full_attention"] * 2},
    "minimax_m3_vl_text+sparse": {
        "layer_types": ["full_attention", "minimax_m3_sparse"],
        "index_block_size": 4,
        "index_topk_blocks": 2,
    },
    "minimax+linear": {"layer_types": ["linear_attention"] * 2},
    "mamba+no-conv-bias": {"use_conv_bias": False, "use_bias": True},
    "qwen3_next+full": {"layer_types": ["full_attention"] * 2, "num_hidden_layers": 2},
    "qwen3_next+linear": {"layer_types": ["linear_attention"] * 2, "num_hidden_layers": 2},
    "bert+relative": {"position_embedding_type": "relative_key"},
    "t5+gated": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "t5+tied": {"tie_word_embeddings": True},
    "longt5+global": {"encoder_attention_type": "transient-global"},
    "bart+scaled": {"scale_embedding": True},
    "nemotron+untied": {"tie_word_embeddings": False, "mlp_bias": True},
    "persimmon+no-qk-norm": {"qk_layernorm": False},
    "diffllama+one-group": {"num_key_value_heads": 4},
    "codegen+tied": {"tie_word_embeddings": True},
    "electra+narrow": {"embedding_size": 16},
} | _rope_variants()
"""By family+flag."""

_SIGHT = {"hidden_size": 32, "intermediate_size": 48}
_SIGLIP = _SIGHT | {"num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 28, "patch_size": 14}
_QWEN = {"depth": 1, "num_heads": 4}
IMAGE_TEXT: dict[str, Changes] = {
    "gemma3": _SIGLIP,
    "qwen2_vl": _QWEN | {"embed_dim": 32, "hidden_size": 32},
    "qwen2_5_vl": _SIGHT | _QWEN | {"out_hidden_size": 32},
    "qwen3_vl": _SIGHT | _QWEN | {"out_hidden_size": 32, "deepstack_visual_indexes": [0]},
    "llama4": _SIGLIP
    | {"intermediate_size": 128, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32},
}
"""Kinds with images, as their checkpoints for both, with what makes the part that reads images small. Rows are text."""
ROTATED_BY_PLACE = {"qwen2_vl": [1, 1, 2], "qwen2_5_vl": [1, 1, 2], "qwen3_vl": [4, 2, 2]}
"""Their mrope_section: how many pairs of a head turn with time, height and width."""
IMAGE_IDS = {"image_token_index": 310, "boi_token_index": 311, "eoi_token_index": 312, "image_token_id": 310}
IMAGE_IDS |= {"video_token_id": 313, "vision_start_token_id": 311, "vision_end_token_id": 312, "mm_tokens_per_image": 4}

NOT_TEXT = frozenset(
    "audioflamingo3 musicflamingo glmasr granite_speech granite_speech_plus moss_transcribe_diarize nemo_speechlm "
    "omniasr qwen2_audio qwen3_asr vibevoice_asr voxtral voxtral_realtime musicgen musicgen_melody moshi git got_ocr2 "
    "gemma3 fuyu mllama emu3 phi4_multimodal whisper seamless_m4t seamless_m4t_v2 gemma3n gemma4 gemma4_unified "
    "dots3_note qwen3_5 qwen3_5_moe qwen4_exp gemma4_assistant gemma4_unified_assistant".split()
)
"""They need images or audio, or the states of another model."""

SLICE = tuple(
    "llama llama+rope-dynamic phi3+rope-longrope qwen2+window qwen2_moe mistral gemma2 gemma3_text gpt2 gpt_neox "
    "falcon+alibi bloom mpt opt roberta gptj cohere2 llama4_text smollm3+no-rope deepseek_v3 gpt_oss mixtral mamba "
    "jamba qwen3_next granite+scaled t5 t5gemma bart+pair prophetnet+pair rwkv gemma3+images qwen2_5_vl+images "
    "llama4+images llama+fp8 gpt_oss+mxfp4".split()
)
"""Thirty-six that stand for every kind, for a test. RoBERTa is BERT with a table of positions that begins elsewhere.
"""
