"""Runs by itself: loads exports where Fledge cannot be imported, and writes down what they do.

It is what somebody without Fledge would write, so it shares no code with Fledge. A kind of export is one function that
loads it and one line in LOADERS. It is written for Python from 3.9 on and transformers from 4.41 on, so that an export
can be proven in the very environment that will read it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
)

Case = dict[str, Any]
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
DTYPE = "dtype" if VERSION >= (4, 56) else "torch_dtype"
"""What from_pretrained calls the number format."""
ALONE = {"adapter_kwargs": {"subfolder": ".no-adapter"}}
"""Keeps from_pretrained from loading an adapter that lies beside a base's weights, by looking where there is none."""


def load_adapter(case: Case) -> tuple[Any, Any]:
    """Model and tokenizer: plain peft puts the adapter on the base that plain transformers loads."""
    # fetched here and not above, so that merged exports are seen to do without peft
    peft = importlib.import_module("peft")
    tokenizer = AutoTokenizer.from_pretrained(case["folder"], trust_remote_code=case["trust_remote_code"])
    base = _load(case["base"], case, {"revision": case["revision"]}, ALONE)
    settings = peft.PeftConfig.from_pretrained(case["folder"])
    brings_tokens = bool(getattr(settings, "trainable_token_indices", None))
    if brings_tokens and len(tokenizer) > base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(len(tokenizer), **({"mean_resizing": False} if VERSION >= (4, 46) else {}))
    model = peft.PeftModel.from_pretrained(base, case["folder"]).get_base_model()
    if os.path.isfile(os.path.join(case["folder"], "generation_config.json")):  # noqa: PTH113, PTH118
        model.generation_config = GenerationConfig.from_pretrained(case["folder"])
    return model, tokenizer


def load_hf(case: Case) -> tuple[Any, Any]:
    """Model and tokenizer, by plain transformers from the folder alone."""
    tokenizer = AutoTokenizer.from_pretrained(case["folder"], trust_remote_code=case["trust_remote_code"])
    return _load(case["folder"], case, {}), tokenizer


def load_gguf(case: Case) -> tuple[Any, Any]:
    """Model and tokenizer, by transformers' own reader of GGUF, or by the reader that the case names, which is a file
    with `load(path, dtype)`, model and tokenizer; a tokenizer of None where there is none to be had from the file.
    """
    path = os.path.join(case["folder"], case["file"])  # noqa: PTH118
    if case["reader"] is None:
        tokenizer = AutoTokenizer.from_pretrained(case["folder"], gguf_file=case["file"])
        return _load(case["folder"], case, {"gguf_file": case["file"]}), tokenizer
    described = importlib.util.spec_from_file_location("reader", case["reader"])
    assert described is not None and described.loader is not None
    reader = importlib.util.module_from_spec(described)
    described.loader.exec_module(reader)
    return reader.load(path, case["dtype"])


def _load(where: str, case: Case, how: dict[str, Any], more: dict[str, Any] | None = None) -> Any:
    how = how | {"trust_remote_code": case["trust_remote_code"]}
    kind, dtype = _auto(AutoConfig.from_pretrained(where, **how)), getattr(torch, case["dtype"])
    how |= {**(more or {}), DTYPE: dtype}
    if case["is_streamed"]:
        how["device_map"] = _places(kind, where, {"trust_remote_code": case["trust_remote_code"]})
        how["offload_folder"] = case["out"] + ".offloaded"
    if case["attention"] is not None:
        how["attn_implementation"] = case["attention"]
    model = kind.from_pretrained(where, **how)
    if type(model).__name__ == "Llama4ForConditionalGeneration":  # computes nothing by itself in transformers 5.24
        model.language_model.register_forward_hook(_lend_no_images)
    return model


def _places(kind: Any, where: str, how: dict[str, Any]) -> dict[str, str]:
    """For accelerate: blocks stay on the disk until they compute, the rest lies in memory."""
    with torch.device("meta"):
        empty = kind.from_config(AutoConfig.from_pretrained(where, **how), **how)
    lists = [(name, each) for name, each in empty.named_modules() if isinstance(each, torch.nn.ModuleList)]
    outer = [(name, each) for name, each in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    most = max(len(each) for _, each in outer)
    blocks = [f"{name}.{number}" for name, each in outer if len(each) == most for number in range(most)]
    held = {
        name.rsplit(".", 1)[0] for name, _ in (*empty.named_parameters(remove_duplicate=False), *empty.named_buffers())
    }
    rest = sorted(name for name in held if not any(f"{name}.".startswith(f"{block}.") for block in blocks))
    return {**dict.fromkeys(rest, "cpu"), **dict.fromkeys(blocks, "disk")}


def _lend_no_images(_module: Any, _given: Any, out: Any) -> None:
    """Llama 4's class for text and images asks the output of its language model for what it has not."""
    if not hasattr(out, "image_outputs"):
        out.image_outputs = None


def _auto(config: Any) -> Any:
    """The automatic class of a configuration; one for images where that is the class whose weights these are."""
    if config.is_encoder_decoder:
        return AutoModelForSeq2SeqLM
    known, named = getattr(transformers, "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING", {}), config.architectures or ()
    reads_images = type(config) in known and (
        known[type(config)].__name__ in named or type(config) not in AutoModelForCausalLM._model_mapping
    )
    return transformers.AutoModelForImageTextToText if reads_images else AutoModelForCausalLM


LOADERS: dict[str, Callable[[Case], tuple[Any, Any]]] = {"adapter": load_adapter, "hf": load_hf, "gguf": load_gguf}


def tell(case: Case) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Float32 logits [T,V] of each row of ids, by its place, and what else is asked of an export."""
    model, tokenizer = LOADERS[case["kind"]](case)
    model = (model if case["is_streamed"] else model.to(case["device"])).eval()
    told: dict[str, Any] = {"dtype": str(model.dtype).removeprefix("torch."), "stop_ids": _stops(model)}
    told["versions"] = _versions(case)
    if case["wants_tensors"] and not case["is_streamed"]:
        told["tensors"] = {name: _digest(tensor, model.dtype) for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        found, told["answers"] = (_streamed if case["is_streamed"] else _one_by_one)(model, case)
    logits = {str(place): each for place, each in enumerate(found)}
    told["tokenizer"] = None if tokenizer is None else _read(tokenizer, case)
    return logits, told


def _one_by_one(model: Any, case: Case) -> tuple[list[torch.Tensor], list[list[int]]]:
    """Logits [T,V] of each row, and the answer to each prompt."""
    logits = [_logits(model, row) for row in case["rows"]]
    return logits, [_answer(model, prompt, case["max_new_tokens"]) for prompt in case["prompts"]]


def _streamed(model: Any, case: Case) -> tuple[list[torch.Tensor], list[list[int]]]:
    """The same with few passes through the model: rows together, and each answer as far as it is the given one."""
    rows, prompts, given = case["rows"], case["prompts"], case["given"]
    if model.config.is_encoder_decoder:
        first = _first_id(model)
        found = _together(model, [*rows, *prompts], [*rows, *([first, *answer] for answer in given)])
        scores = found[len(rows) :]
    else:
        found = _together(model, [*rows, *([*prompt, *answer] for prompt, answer in zip(prompts, given))])
        scores = [each[len(prompt) - 1 :] for each, prompt in zip(found[len(rows) :], prompts)]
    stops, most = set(_stops(model)), case["max_new_tokens"]
    answers = [_taken(each, answer, stops, most) for each, answer in zip(scores, given)]
    return found[: len(rows)], answers


def _taken(scores: torch.Tensor, given: list[int], stops: set[int], most: int) -> list[int]:
    """The greedy answer up to where it leaves the given one, from the scores [T+1,V] of its T tokens and the next."""
    for place, token in enumerate(scores.argmax(dim=-1).tolist()):
        wanted = given[place] if place < len(given) else None
        if wanted is None and place == most:
            break
        if token != wanted:
            return given[:place] if token in stops else [*given[:place], token]
    return list(given)


def _together(model: Any, read: list[list[int]], written: list[list[int]] | None = None) -> list[torch.Tensor]:
    """Logits [T,V] of rows that are computed as one batch, padded at their ends."""
    ids, mask = _padded(read)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if written is not None:
        inputs["decoder_input_ids"] = _padded(written)[0]
    logits = model(**inputs, use_cache=False).logits
    return [each[: len(row)].float().contiguous() for each, row in zip(logits, written or read)]


def _padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(row) for row in rows)
    ids = [[*row, *[row[-1]] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def _versions(case: Case) -> dict[str, str]:
    """Of Python and of the libraries that read the export."""
    names = ["transformers", "tokenizers", "torch", *(["peft"] if case["kind"] == "adapter" else [])]
    found = {name: str(importlib.import_module(name).__version__) for name in names}
    return {"python": platform.python_version(), **found}


def _logits(model: Any, row: list[int]) -> torch.Tensor:
    """[T,V] of a row, which an encoder-decoder reads on both sides."""
    inputs = {"input_ids": torch.tensor([row], device=model.device)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    return model(**inputs, use_cache=False).logits[0].float().cpu().contiguous()


def _stops(model: Any) -> list[int]:
    found = model.generation_config.eos_token_id
    return sorted([found] if isinstance(found, int) else found or [])


def _answer(model: Any, prompt: list[int], max_new_tokens: int) -> list[int]:
    """The greedy continuation, up to the first stop token: of the export's own settings only where to stop is kept."""
    own, stops = model.generation_config, _stops(model)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=stops or None,
        pad_token_id=own.pad_token_id if own.pad_token_id is not None else (stops or [0])[0],
    )
    is_pair = model.config.is_encoder_decoder
    if is_pair:
        settings.decoder_start_token_id = _first_id(model)
    ids = torch.tensor([prompt], device=model.device)
    model.generation_config = settings  # what a call leaves open is read from here
    try:
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    finally:
        model.generation_config = own
    answer = made[0].tolist()[1 if is_pair else len(prompt) :]
    return answer[: next((place for place, token in enumerate(answer) if token in stops), len(answer))]


def _first_id(model: Any) -> int:
    """What an encoder-decoder's decoder starts with."""
    names = ("decoder_start_token_id", "bos_token_id", "pad_token_id")
    found = (getattr(place, name, None) for name in names for place in (model.generation_config, model.config))
    return int(next(token for token in found if token is not None))


def _digest(tensor: torch.Tensor, dtype: torch.dtype) -> str:
    """sha256 of shape and bytes; a tensor that the library widens while it loads is narrowed again, which is exact."""
    kept = tensor.to(dtype) if tensor.is_floating_point() else tensor
    digest = hashlib.sha256(f"{kept.dtype}{tuple(kept.shape)}".encode())
    for piece in _pieces(kept.detach().contiguous().reshape(-1)):
        digest.update(piece.cpu().view(torch.uint8).numpy())
    return digest.hexdigest()


def _pieces(flat: torch.Tensor, size: int = 1 << 24) -> Iterator[torch.Tensor]:
    for start in range(0, flat.numel(), size):
        yield flat[start : start + size]


def _read(tokenizer: Any, case: Case) -> dict[str, Any]:
    """What the tokenizer makes of texts and of a conversation."""
    template = tokenizer.chat_template
    ids = [tokenizer(text, add_special_tokens=is_bare)["input_ids"] for text, is_bare in case["texts"]]
    told: dict[str, Any] = {"ids": ids, "rendered": None, "rendered_ids": []}
    is_plain = template is None or isinstance(template, str)
    told["template"] = template if is_plain else json.dumps(template, sort_keys=True)
    if template and case["conversation"]:
        how: dict[str, Any] = {"conversation": case["conversation"], "add_generation_prompt": True}
        told["rendered"] = tokenizer.apply_chat_template(**how, tokenize=False)
        told["rendered_ids"] = tokenizer.apply_chat_template(**how, tokenize=True, return_dict=True)["input_ids"]
    return told


def main() -> None:
    """Work off the cases in the JSON file that is named on the command line."""
    sys.modules["fledge"] = None  # type: ignore[assignment]
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123
        request = json.load(file)
    torch.set_num_threads(request["threads"])
    for case in request["cases"]:
        logits, told = tell(case)
        save_file(logits, case["out"] + ".safetensors")
        with open(case["out"] + ".json", "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(told, file)


if __name__ == "__main__":
    main()
