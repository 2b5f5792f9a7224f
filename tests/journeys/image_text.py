"""Tiny bases for text and images, as they are published, with what their processors make of an image."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText
from transformers.models.llama4.modeling_llama4 import Llama4ForConditionalGeneration

from bench.families_bases import build, tokenizer, with_images
from bench.families_quantized import BLOCK, FP8, in_fp8
from tests.runs import recipe_dict, write_rows

KINDS = ("gemma3", "qwen2_5_vl", "llama4")
IMAGES = {
    "gemma3": ("model.vision_tower", "model.multi_modal_projector"),
    "qwen2_5_vl": ("model.visual",),
    "llama4": ("vision_model", "multi_modal_projector"),
}
"""Names of the modules that read images."""
SPELT = {"gemma3": ("vision_tower.", "vision_tower.vision_model.")}
"""How published files call what the library writes otherwise."""
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PROCESSOR = {"preprocessor_config.json": {"do_resize": True}, "processor_config.json": {"image_seq_length": 4}}


def published(kind: str, folder: Path) -> Path:
    """A base with the names that are published, the files of its processor and a chat template in one of them."""
    build(f"{kind}+images", folder)
    path = folder / "model.safetensors"
    before, after = SPELT.get(kind, ("", ""))
    renamed = {name.replace(before, after, 1): tensor for name, tensor in load_file(path).items()}
    made = torch.Generator().manual_seed(4)
    for tensor in renamed.values():
        if not tensor.any():  # a projector that starts at nothing would hide every image
            tensor.normal_(std=0.1, generator=made)
    save_file(renamed, path, metadata={"format": "pt"})
    for name, content in (PROCESSOR | {"chat_template.json": {"chat_template": TEMPLATE}}).items():
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return folder


def published_in_fp8(folder: Path) -> Path:
    """A Gemma 3 whose language model is in FP8 by blocks, and what reads images in float32."""
    config = with_images("gemma3")
    text = config.text_config.to_dict() | {"hidden_size": BLOCK, "intermediate_size": 2 * BLOCK, "head_dim": 32}
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(type(config).from_dict(config.to_dict() | {"text_config": text}))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    tensors = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if not (name.startswith("language_model") and name.endswith("proj.weight")):
            tensors[name] = weight
            continue
        codes, scale, _ = in_fp8(weight)
        tensors |= {name: codes, f"{name}_scale_inv": scale}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    settings = FP8 | {"modules_to_not_convert": [*IMAGES["gemma3"], "lm_head"]}
    own = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(own | {"quantization_config": settings}))
    return folder


def content_for(base: Path, folder: Path, name: str = "run", **changes: Any) -> dict[str, Any]:
    """A recipe for rows of text in `folder`."""
    rows = write_rows(folder / "rows.jsonl")
    return recipe_dict(base, rows, folder / name, data__validation={"fraction": 0.2}, **changes)


def opened(folder: Path) -> Any:
    """What a stranger loads: the class for text and images, whole."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    if isinstance(model, Llama4ForConditionalGeneration):  # computes nothing by itself in transformers 5.24.0
        model.language_model.register_forward_hook(lambda module, given, out: setattr(out, "image_outputs", None))
    return model


def with_image(kind: str) -> dict[str, torch.Tensor]:
    """A row of text with a random image in it, as its processor would give it."""
    made = torch.Generator().manual_seed(3)
    tokens = 4 if kind == "gemma3" else 1
    ids = torch.tensor([[5, 9, *[310] * tokens, 17, 23, 41]])
    if kind == "qwen2_5_vl":
        pixels = torch.randn(4, 3 * 2 * 14 * 14, generator=made)
        kinds = {"image_grid_thw": torch.tensor([[1, 2, 2]]), "mm_token_type_ids": (ids == 310).int()}
        return {"input_ids": ids, "pixel_values": pixels, **kinds}
    return {"input_ids": ids, "pixel_values": torch.randn(1, 3, 28, 28, generator=made)}


def lies_in(name: str, parts: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{part}.") for part in parts)
