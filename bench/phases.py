"""Peak memory and seconds of each phase of whole runs: `fledge train`, as its own summary tells them.

    python bench/phases.py llama-2-7b  --base FOLDER --rows guanaco.jsonl   [--without-bf16]
    python bench/phases.py flan-t5-xl  --base FOLDER --rows samsum.json.gz  [--without-bf16]

The longest rows of a file are taken, so that each fills a micro-batch of 512 positions. The bases are of true shape
with random weights, or the real ones. `--without-bf16` takes the instructions for bfloat16 away, by torch's and
oneDNN's own switches, as on a CPU that has AVX2 alone. The quantised base stays under --work, and a second call loads
it from there. Run nothing beside it where seconds count.
"""

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
STEPS = 2
ROWS = 2
"""Rows of a step, each cut at max_length: with 512 positions a micro-batch, two micro-batches."""
KEPT = 40
"""Of the file's rows, the longest."""
SHAPES: dict[str, dict[str, Any]] = {
    "llama-2-7b": {
        "model": {"quantization": "nf4"},
        "rows": {"format": "text"},
        "data": {"max_length": 512, "overlong": "truncate"},
        "lora": {"r": 64, "lora_alpha": 16, "lora_dropout": 0.1},
        "train": {"micro_batch_tokens": 512},
    },
    "flan-t5-xl": {
        "model": {"quantization": "int8"},
        "rows": {"format": "completion", "prompt": "dialogue", "completion": "summary", "prompt_prefix": "summarize: "},
        "data": {"max_length": 512, "max_target_length": 128, "overlong": "truncate"},
        "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": ["q", "v"]},
        "train": {"micro_batch_tokens": 512},
    },
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be run."""

    shape: str
    base: Path
    rows: Path
    work: Path
    set: tuple[str, ...]


def recipe(asked: Asked) -> dict[str, Any]:
    """The recipe of a run; with validation, so that this phase is there."""
    shape = SHAPES[asked.shape]
    source = shape["rows"] | {"path": str(asked.work.resolve() / "rows.jsonl")}
    return {
        "model": shape["model"] | {"name_or_path": str(asked.base.resolve())},
        "data": shape["data"] | {"train": source, "validation": {"fraction": 0.05}},
        "lora": shape["lora"],
        "train": shape["train"] | {"gradient_checkpointing": True, "max_steps": STEPS, "global_batch_size": ROWS},
        "evaluate": {"max_rows": ROWS},
        "output": {"dir": str(asked.work.resolve() / "run")},
    }


def longest_rows(path: Path) -> str:
    """The longest rows of a file, JSON or JSON lines, packed or not, as JSON lines."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    kept = sorted(rows, key=lambda row: len(json.dumps(row)), reverse=True)[:KEPT]
    return "".join(json.dumps(row) + "\n" for row in kept)


def run(asked: Asked, *, environment: dict[str, str]) -> dict[str, Any]:
    """The summary of a run in a process of its own."""
    asked.work.mkdir(parents=True, exist_ok=True)
    (asked.work / "rows.jsonl").write_text(longest_rows(asked.rows), encoding="utf-8")
    file = asked.work / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(asked)), encoding="utf-8")
    shutil.rmtree(asked.work / "run", ignore_errors=True)
    command = [sys.executable, "-m", "fledge", "train", str(file), *asked.set]
    own = {"XDG_CACHE_HOME": str(asked.work / "cache")}
    subprocess.run(command, check=True, env=os.environ | environment | own)
    summary: dict[str, Any] = json.loads((asked.work / "run" / "summary.json").read_text(encoding="utf-8"))
    return summary


def abilities() -> str:
    """What this processor has of what matters here."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    known = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    return " ".join(known) or "none of AVX2, AVX-512, AMX"


def table(summary: dict[str, Any]) -> str:
    """Phases, their peaks and times."""
    lines = ["| phase | peak memory | seconds |", "| --- | --- | --- |"]
    for name, phase in summary["phases"].items():
        peak = phase["peak_memory_bytes"]
        lines.append(f"| {name} | {'-' if peak is None else f'{peak / 1e9:.2f} GB'} | {phase['seconds']:.1f} |")
    lines.append(f"| the whole run | {summary['peak_memory_bytes'] / 1e9:.2f} GB | |")
    step, tokens = (total / summary["steps"] for total in (summary["wall_seconds"], summary["tokens"]))
    return "\n".join([*lines, f"\nA step takes {step:.1f} s and has {tokens:,.0f} tokens."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/fledge-phases"))
    parser.add_argument("--without-bf16", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    asked = Asked(given.shape, given.base, given.rows, given.work, tuple(given.set))
    summary = run(asked, environment=AVX2 if given.without_bf16 else {})
    taken = ", its bfloat16 instructions not used" if given.without_bf16 else ""
    print(f"{given.shape} on {abilities()}{taken}, {os.environ.get('OMP_NUM_THREADS', os.cpu_count())} threads\n")
    print(table(summary))


if __name__ == "__main__":
    main()
