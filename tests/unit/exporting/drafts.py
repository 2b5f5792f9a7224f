"""Exports of tests: written many at a time, asked in one fresh process, and spoilt as a disk or a mistake would."""

import gc
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
from transformers import PreTrainedModel

from fledge.commands.export import order_for, probe_of, source_of
from fledge.commands.open_run import open_run
from fledge.exporting.outside import Outside, ask_outside
from fledge.exporting.targets.draft import Draft
from fledge.exporting.targets.table import TARGETS


@dataclass(frozen=True)
class Written:
    """An export that is not proven yet."""

    folder: Path
    draft: Draft


def write(run: Path, folder: Path, *, to: str = "hf", **order: Any) -> Written:
    opened = open_run(run)
    folder.mkdir(parents=True)
    order = order_for(opened.recipe.model, to, **order)
    draft = TARGETS[to].write(source_of(opened, "last"), folder, probe=probe_of(opened), order=order)
    return Written(folder, draft)


def ask(written: Mapping[str, Written]) -> dict[str, tuple[Outside, ...]]:
    """The answers to every draft, from one process."""
    found = iter(ask_outside([case for each in written.values() for case in each.draft.cases]))
    return {name: tuple(next(found) for _ in each.draft.cases) for name, each in written.items()}


def num_models() -> int:
    """How many models are in memory with their weights."""
    models = [each for each in gc.get_objects() if issubclass(type(each), PreTrainedModel)]
    return sum(any(not parameter.is_meta for parameter in model.parameters()) for model in models)


def spoilt(written: Written, folder: Path, spoil: Callable[[Path], None]) -> Written:
    """A copy of an export in which something was changed after it was written."""
    shutil.copytree(written.folder, folder)
    spoil(folder)
    cases = tuple(replace(case, folder=str(folder)) for case in written.draft.cases)
    return Written(folder, replace(written.draft, cases=cases))


def tensor_places(path: Path) -> dict[str, tuple[int, int]]:
    """Name -> first and last byte of each tensor in a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    begin = 8 + length
    return {
        name: tuple(begin + at for at in about["data_offsets"])
        for name, about in header.items()
        if name != "__metadata__"
    }


def flip(path: Path, place: int, mask: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= mask
    path.write_bytes(content)


def _weights(folder: Path) -> Path:
    return next(folder.glob("*model.safetensors"))


def lowest_bit(folder: Path) -> None:
    """One bit of one weight, the least there is: float32 begins with its lowest byte."""
    begin, _ = max(tensor_places(_weights(folder)).values(), key=lambda place: place[1] - place[0])
    flip(_weights(folder), begin, 0x01)


def one_tensor(folder: Path) -> None:
    """Every weight of one tensor has the other sign."""
    path = _weights(folder)
    begin, end = max(tensor_places(path).values(), key=lambda place: place[1] - place[0])
    content = bytearray(path.read_bytes())
    content[begin + 3 : end : 4] = bytes(byte ^ 0x80 for byte in content[begin + 3 : end : 4])
    path.write_bytes(content)


def template_byte(folder: Path) -> None:
    """One letter of the chat template has another case."""
    path = folder / "chat_template.jinja"
    content = path.read_bytes()
    assert content.count(b"assistant") == 1
    path.write_bytes(content.replace(b"assistant", b"assistanT"))


def stop_token(folder: Path) -> None:
    """One of the stop tokens is the next one."""
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text())
    settings["eos_token_id"][-1] -= 1
    path.write_text(json.dumps(settings))


def lost_stop_token(folder: Path) -> None:
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text())
    settings["eos_token_id"] = settings["eos_token_id"][0]
    path.write_text(json.dumps(settings))


def doubled_bos(folder: Path) -> None:
    """The tokenizer puts a BOS before every text, which it did not in the training."""
    path = folder / "tokenizer.json"
    rules = json.loads(path.read_text())
    rules["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    path.write_text(json.dumps(rules))


def _gguf(folder: Path) -> Path:
    return next(folder.glob("*.gguf"))


def gguf_lowest_bit(folder: Path) -> None:
    """One bit of the file's first norm, which lies there in float32."""
    norms = [tensor for tensor in gguf.GGUFReader(_gguf(folder)).tensors if tensor.tensor_type.name == "F32"]
    flip(_gguf(folder), int(norms[0].data_offset), 0x01)


def gguf_one_tensor(folder: Path) -> None:
    """Every second weight of the largest tensor has the other sign."""
    largest = max(gguf.GGUFReader(_gguf(folder)).tensors, key=lambda tensor: tensor.n_bytes)
    begin, end = int(largest.data_offset), int(largest.data_offset + largest.n_bytes)
    content = bytearray(_gguf(folder).read_bytes())
    content[begin + 1 : end : 4] = bytes(byte ^ 0x80 for byte in content[begin + 1 : end : 4])
    _gguf(folder).write_bytes(content)


def gguf_template_byte(folder: Path) -> None:
    content = _gguf(folder).read_bytes()
    assert content.count(b"|im_start|>assistant") == 1
    _gguf(folder).write_bytes(content.replace(b"|im_start|>assistant", b"|im_start|>assistanT"))


def gguf_stop_token(folder: Path) -> None:
    field = gguf.GGUFReader(_gguf(folder), "r+").fields["tokenizer.ggml.eot_token_id"]
    field.parts[field.data[0]][0] -= 1


def gguf_adds_bos(folder: Path) -> None:
    field = gguf.GGUFReader(_gguf(folder), "r+").fields["tokenizer.ggml.add_bos_token"]
    field.parts[field.data[0]][0] = True


def gguf_word(folder: Path) -> None:
    """One letter of one word of the vocabulary, a word that no merge makes."""
    tokens = gguf.GGUFReader(_gguf(folder), "r+").fields["tokenizer.ggml.tokens"]
    tokens.parts[tokens.data[320]][3] ^= 0x01


SPOILS: dict[str, tuple[Callable[[Path], None], str]] = {
    "lowest-bit": (lowest_bit, "1 tensors are not what was written|are not what was trained"),
    "one-tensor": (one_tensor, "not what was written|logits differ by"),
    "template-byte": (template_byte, "chat template is not the run's, byte for byte"),
    "stop-token": (stop_token, "stops on"),
    "lost-stop-token": (lost_stop_token, "stops on"),
    "doubled-bos": (doubled_bos, "BOS tokens"),
}
"""Name -> what is changed after writing, and how the proof speaks of it."""
GGUF_SPOILS: dict[str, tuple[Callable[[Path], None], str]] = {
    "lowest-bit": (gguf_lowest_bit, "tensors are not what was written|file is not what was written"),
    "one-tensor": (gguf_one_tensor, "logits differ by"),
    "template-byte": (gguf_template_byte, "chat template is not the run's, byte for byte"),
    "stop-token": (gguf_stop_token, "stops on"),
    "doubled-bos": (gguf_adds_bos, "BOS tokens"),
    "one-word": (gguf_word, "words of the file are not the tokenizer's"),
}
