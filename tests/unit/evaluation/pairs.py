"""Tiny random encoder-decoders."""

import torch
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedModel, T5Config, T5ForConditionalGeneration

VOCABULARY = 320
PAD, END = 2, 1


def tiny_t5(*, seed: int = 0) -> PreTrainedModel:
    """Two layers a side, four heads; as old T5 folders, its config does not say what the decoder starts with."""
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        initializer_factor=3.0,
        pad_token_id=PAD,
        eos_token_id=END,
    )
    return _random(T5ForConditionalGeneration, config, seed)


def tiny_bart(*, seed: int = 0) -> PreTrainedModel:
    """Two layers a side, four heads, 64 positions; the decoder starts with the end token, as BART's does."""
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        dropout=0.0,
        init_std=0.3,
        bos_token_id=0,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=END,
        forced_eos_token_id=END,
    )
    return _random(BartForConditionalGeneration, config, seed)


def _random(kind: type[PreTrainedModel], config: T5Config | BartConfig, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config).eval()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    return model
