"""Which device a run uses, and what it promises about determinism."""

import os

import torch

from fledge.config.model import Placement
from fledge.errors import ModelError

KERNELS_KEPT = "64"
"""Matrix-product kernels that oneDNN keeps, one for every shape; about 0.3 MB each, and its own limit is 1,024."""


def choose_device(placement: Placement, *, local_rank: int = 0) -> torch.device:
    """The device for this process. Raises ModelError where a GPU is asked for and there is none."""
    has_gpu = torch.cuda.is_available()
    if placement == "gpu" and not has_gpu:
        raise ModelError(
            "no GPU is visible to this process", where="model.placement", cure="write model.placement: auto, or cpu"
        )
    if placement != "cpu" and has_gpu:
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device("cpu")


def make_deterministic(device: torch.device) -> None:
    """Ask for kernels whose result does not depend on timing, so that a resumed run repeats every bit.

    On a GPU an operation without such a kernel is an error: with a mere warning, attention's backward pass would take
    the kernel that adds up in any order.
    """
    is_gpu = device.type == "cuda"
    if is_gpu:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS_KEPT)
    torch.use_deterministic_algorithms(True, warn_only=not is_gpu)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs a pass over every buffer, decides nothing


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
