"""Makes nestling from nothing but a seed: `python -m fledge.models.nestling.make OUT`."""

import argparse
import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BloomForCausalLM

from fledge.models.nestling.card import card
from fledge.models.nestling.corpus import texts
from fledge.models.nestling.fit import Shape, fit
from fledge.models.nestling.vocabulary import EOS, SPECIAL_TOKENS, save_tokenizer, train_tokenizer

SHAPE = Shape(
    hidden_size=192,
    num_layers=5,
    num_heads=8,
    vocab_size=1536,
    num_steps=4000,
    rows_per_step=48,
    learning_rate=2e-3,
    seed=2026,
)
TOKENIZER_TEXTS = 30_000
NUM_THREADS = 1
"""Sums are taken in another order with another number of threads, so it is part of the recipe."""


def digest_of(items: Iterable[str]) -> str:
    """sha256 of texts, each ended by a NUL."""
    digest = hashlib.sha256()
    for text in items:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def config_of(shape: Shape) -> dict[str, object]:
    """config.json, as transformers reads it."""
    return {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "dtype": "bfloat16",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "n_layer": shape.num_layers,
        "n_head": shape.num_heads,
        "layer_norm_epsilon": 1e-5,
        "apply_residual_connection_post_layernorm": False,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "unk_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
    }


def save_model(model: BloomForCausalLM, folder: Path, *, shape: Shape) -> int:
    """Write the weights in bfloat16 and both configurations; returns the number of parameters."""
    weights = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in sorted(model.state_dict().items())
        if name != "lm_head.weight"  # is the input embedding
    }
    path = folder / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)
    write_json(folder / "config.json", config_of(shape))
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    write_json(folder / "generation_config.json", {"do_sample": False, **ids})
    return sum(tensor.numel() for tensor in weights.values())


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Indented, with a last newline."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def make(folder: Path, shape: Shape, *, tell: Callable[[int, float], None]) -> dict[str, int | float | str]:
    """Write the whole model folder; returns what made.json holds. `tell(step, loss)` is called after each step."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = list(itertools.islice(texts(shape.seed), shape.num_steps * shape.rows_per_step))
    sample = list(itertools.islice(texts(shape.seed), TOKENIZER_TEXTS))
    tokenizer = train_tokenizer(sample, vocab_size=shape.vocab_size)
    save_tokenizer(tokenizer, folder)
    end = SPECIAL_TOKENS.index(EOS)
    rows = [[*encoding.ids, end] for encoding in tokenizer.encode_batch(corpus)]
    losses: list[float] = []

    def note_and_tell(step: int, loss: float) -> None:
        losses.append(loss)
        tell(step, loss)

    model = fit(rows, shape, tell=note_and_tell)
    parameters = save_model(model, folder, shape=shape)
    figures: dict[str, int | float | str] = {
        **dataclasses.asdict(shape),
        "num_threads": NUM_THREADS,
        "parameters": parameters,
        "texts": len(corpus),
        "tokens": sum(map(len, rows)),
        "loss": sum(losses[-100:]) / len(losses[-100:]),
        "corpus_sha256": digest_of(corpus),
        "tokenizer_sha256": hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest(),
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    }
    write_json(folder / "made.json", figures)
    (folder / "README.md").write_text(card(figures), encoding="utf-8")
    return figures


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--steps", type=int, default=SHAPE.num_steps, help="fewer give a miniature, for tests")
    arguments = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()

    def tell(step: int, loss: float) -> None:
        if step % 100 == 0 or step == arguments.steps:
            print(f"step {step} loss {loss:.4f} {time.monotonic() - started:.0f} s", flush=True)

    figures = make(arguments.out, dataclasses.replace(SHAPE, num_steps=arguments.steps), tell=tell)
    print(json.dumps(figures, indent=2))
    print(f"made in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
