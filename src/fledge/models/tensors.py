"""Safetensors files, read tensor by tensor and never mapped, so that memory holds what was asked for and no more.

The library's own `pread` holds each tensor twice while it is read, which for an embedding is a gigabyte.
"""

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fledge.errors import ModelError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNED = 64
"""Tensors begin at such places in a file, as long as their sizes are multiples of it, for files may be mapped."""
_LARGEST_HEADER = 100 << 20
"""Bytes, as the format's own library allows."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file. It answers as the library's slices do, of which transformers reads `[...]`."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Of its bytes in the file."""

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def get_dtype(self) -> str:
        return self.dtype

    def __getitem__(self, _: Any) -> torch.Tensor:
        return self.read()

    def read(self) -> torch.Tensor:
        """The tensor, in memory of its own. Raises ModelError where the file ends before it does."""
        tensor = torch.empty(self.shape, dtype=DTYPES[self.dtype])
        view = memoryview(tensor.view(-1).view(torch.uint8).numpy()) if tensor.numel() else memoryview(b"")
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            done = 0
            while done < len(view):
                got = file.readinto(view[done:])
                if not got:
                    raise ModelError("the file ends in the middle of a tensor", where=str(self.path), cure=_CURE)
                done += got
        return tensor


_CURE = "fetch the base again, all of its files"


class _Broken(Exception):
    """What is wrong with a header, to be said with the file's name."""


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor in memory that answers as one in a file does."""

    tensor: torch.Tensor

    @property
    def dtype(self) -> str:
        return _NAMES[self.tensor.dtype]

    def get_shape(self) -> list[int]:
        return list(self.tensor.shape)

    def get_dtype(self) -> str:
        return self.dtype

    def __getitem__(self, _: Any) -> torch.Tensor:
        return self.read()

    def read(self) -> torch.Tensor:
        """The tensor, in memory of its own."""
        return self.tensor.clone()


def stored_in(path: Path) -> dict[str, Stored]:
    """The tensors of a file by name. Raises ModelError where it is not a whole safetensors file."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _LARGEST_HEADER:
                raise _Broken("its header is too long")
            text = file.read(length)
        if len(text) < length:
            raise _Broken("it ends in the middle of its header")
        header = json.loads(text)
        found = {name: _stored(path, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"}
    except (_Broken, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"this is not a safetensors file: {error}", where=str(path), cure=_CURE) from error
    size = path.stat().st_size
    for name, entry in found.items():
        if entry.start + math.prod(entry.shape) * DTYPES[entry.dtype].itemsize > size:
            raise ModelError(f"the file ends before its tensor {name}", where=str(path), cure=_CURE)
    return found


def _stored(path: Path, entry: dict[str, Any], data: int) -> Stored:
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not all(isinstance(number, int) for number in (*shape, start, end)):
        raise _Broken("its header contradicts itself")
    if entry["dtype"] not in DTYPES:
        raise _Broken(f"it holds numbers of the kind {entry['dtype']}")
    if end - start != math.prod(shape) * DTYPES[entry["dtype"]].itemsize or start < 0 or min((0, *shape)) < 0:
        raise _Broken("its header contradicts itself")
    return Stored(path, entry["dtype"], shape, data + start)


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that is made when its turn to be written comes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], torch.Tensor]

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file, tensor by tensor, so that no second copy of all of them is made."""
    write_planned(
        {name: Planned(each.dtype, tuple(each.shape), partial(_itself, each)) for name, each in tensors.items()}, path
    )


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def write_planned(planned: Mapping[str, Planned], path: Path) -> None:
    """Write a safetensors file of tensors that are made one after the other: memory holds one of them at a time.

    Raises AssertionError where a tensor is made otherwise than it was planned.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # without it transformers 4 reads no file
    start = 0
    for name, plan in planned.items():
        end = start + plan.size
        header[name] = {"dtype": _NAMES[plan.dtype], "shape": list(plan.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNED)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, plan in planned.items():
            tensor = plan.make()
            assert (tensor.dtype, tuple(tensor.shape)) == (plan.dtype, plan.shape), f"{name} was planned otherwise"
            if tensor.numel():
                flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
                file.write(memoryview(flat.numpy()))
