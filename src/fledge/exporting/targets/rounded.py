"""What every tensor may be after it was rounded to a GGUF file's number format and read back, to the bit."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import gguf
import torch

from fledge.errors import ProofError
from fledge.exporting.gguf.rounding import FileType
from fledge.exporting.verify import digest_of

_Q8_0 = gguf.GGMLQuantizationType.Q8_0
_BLOCK = gguf.GGML_QUANT_SIZES[_Q8_0][0]


def digests_of_rounded(
    names: Iterable[str], tensor_of: Callable[[str], torch.Tensor], *, file_type: FileType, dtype: torch.dtype
) -> dict[str, frozenset[str]]:
    """For each of a model's tensors, in float32, the digests of what a reader may find, which loads it in `dtype`."""
    return {name: frozenset(digest_of(form.to(dtype)) for form in _forms(tensor_of(name), file_type)) for name in names}


def _forms(tensor: torch.Tensor, file_type: FileType) -> Iterator[torch.Tensor]:
    """As it is, which vectors are in every file; rounded; and rounded along its other side, which some files turn."""
    yield tensor
    if tensor.dim() < 2:
        return
    yield tensor.to(torch.bfloat16 if file_type == "bf16" else torch.float16).float()
    if file_type == "q8_0":
        for turned in (tensor, tensor.mT.contiguous()) if tensor.dim() == 2 else (tensor,):
            if turned.shape[-1] % _BLOCK == 0:
                whole = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(turned.numpy(), _Q8_0), _Q8_0))
                yield whole if turned is tensor else whole.mT


def check_rounded(
    written: Mapping[str, frozenset[str]], read: Mapping[str, str], *, loose: frozenset[str]
) -> dict[str, Any]:
    """The figures for the certificate: how many tensors have the very bits of the rounding.

    `loose` are those which a file may hold otherwise; the logits speak for them. Raises ProofError where another one
    differs or is missing.
    """
    same = {name for name, digest in read.items() if digest in written.get(name, frozenset())}
    differing = sorted((written.keys() | read.keys()) - same - (loose & read.keys()))
    if differing:
        what = f"{len(differing)} tensors are not what was written: {', '.join(differing[:5])}"
        raise ProofError(what, cure="nothing was kept; look at the disk, and try again")
    return {"tensors": len(written), "differing": 0, "held_otherwise": len(written) - len(same)}
