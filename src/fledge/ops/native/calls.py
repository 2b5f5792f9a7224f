"""How values are handed to the C++ kernels."""

import ctypes

import torch


def address(x: torch.Tensor | None) -> ctypes.c_void_p:
    """Where a tensor lies; null for None."""
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def size(value: int) -> ctypes.c_int64:
    """A size or a step."""
    return ctypes.c_int64(value)


def sizes(*values: int) -> ctypes.Array[ctypes.c_int64]:
    """Several of them, one after the other."""
    return (ctypes.c_int64 * len(values))(*values)


def format_of(x: torch.Tensor) -> tuple[int, ctypes.c_int64]:
    """Whether x is bfloat16, else it is float32; and how many threads compute."""
    return int(x.dtype == torch.bfloat16), ctypes.c_int64(torch.get_num_threads())
