"""Random numbers: seeding, saving and restoring every generator, and seeds derived from names."""

import hashlib
import json
import random

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from what it is for; the same parts give the same seed on every machine."""
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator_states() -> dict[str, torch.Tensor]:
    """Every generator's state as tensors of bytes, so that safetensors can hold them."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states = {
        "torch.cpu": torch.get_rng_state(),
        "python": _as_bytes(json.dumps([version, words, gauss])),
        "numpy": _as_bytes(json.dumps([name, [int(key) for key in keys], position, has_gauss, cached])),
    }
    if torch.cuda.is_available():
        states |= {f"torch.cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_generators(states: dict[str, torch.Tensor]) -> None:
    """Put back what generator_states() took."""
    torch.set_rng_state(states["torch.cpu"])
    version, words, gauss = json.loads(_as_text(states["python"]))
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = json.loads(_as_text(states["numpy"]))
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    cuda = [states[key] for key in sorted(states) if key.startswith("torch.cuda.")]
    if cuda and torch.cuda.is_available():
        for index, state in enumerate(cuda[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, index)


def _as_bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def _as_text(state: torch.Tensor) -> str:
    return bytes(state.tolist()).decode()
