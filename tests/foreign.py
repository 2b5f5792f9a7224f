"""Adapters as others make them: trained by a plain peft loop, saved by peft, their settings as in the wild."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, OPTConfig

from tests.tiny_models import VOCABULARY, tiny_folder

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
UNKNOWN: dict[str, Any] = {
    "a_key_of_a_newer_peft": None,
    "use_something_new": False,
    "its_settings": {},
    "layers_pattern": None,
    "alpha_pattern": None,
    "rank_pattern": None,
    "auto_mapping": {"base_model_class": "Whatever", "parent_library": "somewhere", "unsloth_fixed": True},
    "eva_config": None,
}
"""Keys that a real adapter_config.json has: unknown ones that are off, and null where peft's default is not."""


def opt_folder(folder: Path) -> Path:
    """A tiny OPT whose weights lie in bfloat16."""
    tiny_folder("llama", folder)  # for its tokenizer
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        word_embed_proj_dim=32,
        init_std=0.15,
        dropout=0.0,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


BASES: dict[str, Callable[[Path], Path]] = {
    "gpt2": lambda folder: tiny_folder("gpt2", folder),
    "opt": opt_folder,
    "llama": lambda folder: tiny_folder("llama", folder),
}
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {"r": 3, "lora_alpha": 7, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True},
    "opt": {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.0, "use_rslora": True},
    "llama": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": r".*\.(q_proj|up_proj)",
        "rank_pattern": {"up_proj": 2},
        "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 24},
        "modules_to_save": ["norm"],
    },
}


def foreign_adapter(
    base: Path, folder: Path, *, changes: dict[str, Any] | None = None, named: str | None = "", **kind: Any
) -> Path:
    """An adapter of a plain peft loop with a learning rate that moves it far; `changes` are made in its settings."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(11)
        model = AutoModelForCausalLM.from_pretrained(base)
        tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **kind))
        for name, parameter in tuned.named_parameters():
            if parameter.requires_grad:
                parameter.data += (0.2 if "lora_" in name else 0.05) * torch.randn_like(parameter)
        tuned.save_pretrained(str(folder))
    if model.dtype == torch.bfloat16:  # as transformers' trainer leaves it behind
        tensors = {name: each.bfloat16() for name, each in load_file(folder / WEIGHTS).items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    base_named = {} if named == "" else {"base_model_name_or_path": named}
    return settings(folder, base_named | (changes or {}))


def settings(folder: Path, changes: dict[str, Any]) -> Path:
    """The adapter's settings with some of them changed."""
    path = folder / SETTINGS
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def classifier(base: Path, folder: Path) -> Path:
    """An adapter that classifies texts."""
    made = foreign_adapter(base, folder, r=2, target_modules=["q_proj"])
    return settings(made, {"task_type": "SEQ_CLS", "modules_to_save": ["score"]})


def put_on(base: Path, folder: Path, *, dtype: torch.dtype = torch.float32, is_trainable: bool = False) -> Any:
    """The adapter on its base by peft alone; null settings, on which peft fails, are left out as peft's defaults."""
    plain = folder.parent / f"{folder.name}-plain"
    if not plain.is_dir():
        plain.mkdir()
        written = json.loads((folder / SETTINGS).read_text())
        known = {name: value for name, value in written.items() if name not in UNKNOWN or value}
        (plain / SETTINGS).write_text(json.dumps(known))
        (plain / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        return PeftModel.from_pretrained(model, str(plain), is_trainable=is_trainable)


def losses_of(
    model: Any, steps: Sequence[Sequence[tuple[list[int], list[bool]]]], *, learning_rate: float
) -> list[float]:
    """A plain loop: each row alone, the mean over all supervised tokens of a step, AdamW, clipping at 1."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    model.eval()
    found = []
    for rows in steps:
        supervised, total = sum(sum(trained[1:]) for _, trained in rows), 0.0
        for ids, trained in rows:
            labels = torch.tensor([[i if t else -100 for i, t in zip(ids, trained, strict=True)]])
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum") / supervised
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(total)
    return found
