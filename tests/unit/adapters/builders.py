"""Bases with adapters for the tests: a tiny model, the adapter of a recipe, weights moved as by training."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from fledge.adapters.attach import Adapted, attach
from fledge.config.lora import LoraSection
from fledge.config.model import Dtype, ModelConfig
from fledge.models.load import Base, load_base
from tests.tiny_models import VOCABULARY, tiny_folder

NEW_TOKENS = ("<|open|>", "<|close|>")


def base_of(architecture: str, folder: Path, dtype: Dtype = "float32", *, attention: str = "auto") -> Base:
    path = folder if (folder / "config.json").exists() else tiny_folder(architecture, folder)
    config = ModelConfig(name_or_path=str(path), dtype=dtype, attention=attention)  # type: ignore[arg-type]
    return load_base(config, device=torch.device("cpu"))


def adapted(base: Base, *, new_tokens: tuple[int, ...] = (), seed: int = 3, **lora: Any) -> Adapted:
    section = LoraSection.model_validate({"r": 4, "lora_alpha": 8.0} | lora)
    return attach(base.model, section, facts=base.facts, seed=seed, new_tokens=new_tokens)


def move(trained: Adapted, *, by: float = 0.1) -> Adapted:
    """Change every trained tensor, as training would."""
    generator = torch.Generator().manual_seed(11)
    for parameter in trained.model.parameters():
        if parameter.requires_grad:
            parameter.data += by * torch.randn(parameter.shape, generator=generator)
    trained.model.eval()
    return trained


def save_tokenizer(base: Path, adapter: Path, *, with_new: bool = False) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    if with_new:
        tokenizer.add_special_tokens({"extra_special_tokens": list(NEW_TOKENS)})
        assert len(tokenizer) == VOCABULARY + len(NEW_TOKENS)
    tokenizer.save_pretrained(adapter)


ROWS = ((5, 9, 33, 210, 77, 12), (100, 101), (319, 3, 3, 250))


@torch.no_grad()
def logits_of(model: Any, rows: tuple[tuple[int, ...], ...] = ROWS) -> list[torch.Tensor]:
    return [model(input_ids=torch.tensor([row]), use_cache=False).logits[0].float() for row in rows]
