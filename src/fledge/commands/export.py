"""`fledge export`: what was trained, written for others, compared and certified."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from fledge.commands.manifest import base_digest
from fledge.commands.open_run import OpenRun, Which, load_tuned, open_run
from fledge.commands.writable import check_writable
from fledge.config.model import Dtype
from fledge.data.pipeline import prepare_training
from fledge.errors import DataError
from fledge.evaluation.generate import Sampling
from fledge.evaluation.generate import generate as answers_of
from fledge.exporting.folder import Source, check_free, export_adapter, export_hf
from fledge.exporting.verify import Probe, fit_rows
from fledge.rundir import RunDir, write_json

To = Literal["adapter", "hf"]
ROWS, ROW_TOKENS, PROMPTS, ANSWER_TOKENS = 8, 128, 4, 24
_TEXTS = (
    "The quick brown fox jumps over the lazy dog, and then it rests.",
    "Below is an instruction that describes a task. Write a response that completes the request.",
    "def add(a, b):\n    return a + b\n",
    "1, 2, 3, 5, 8, 13, 21, 34, 55, 89",
)
"""Stand in for rows where the run's data are not there any more."""


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that was proven: its folder and its certificate, which lies in it.

    `is_filed` says that the run folder has a copy of the certificate: not where it cannot be written.
    """

    out: Path
    to: To
    certificate: dict[str, Any]
    is_filed: bool

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        filed = {"certificate": self.certificate, "is_filed": self.is_filed}
        return {"out": str(self.out), "to": self.to} | filed

    def findings(self) -> list[str]:
        """What was compared, a line each, for a person to read."""
        checks = self.certificate["checks"]
        logits, text, effect = checks["logits"], checks["text"], checks["effect"]
        lines = [
            f"logits: largest difference {logits['max_abs']:.3g}, mean KL {logits['mean_kl']:.3g} "
            f"(allowed {logits['tolerance']['mean_kl']:.2g}) at {logits['positions']} positions",
            f"greedy text: {text['same']} of {text['prompts']} the same"
            + f", {text['ties']} tied" * bool(text["ties"]),
        ]
        if "merge" in checks:
            lines.insert(0, f"merging in float32: largest difference {checks['merge']['max_abs']:.3g}")
        if logits["mean_kl"] > 0.1 * effect["mean_kl"] > 0:
            share = logits["mean_kl"] / effect["mean_kl"]
            lines.append(f"rounding moves the model {share:.0%} as far as the training did; --dtype float32 avoids it")
        if not self.is_filed:
            lines.append("the run folder cannot be written: the certificate is in the export alone")
        return lines


def export(
    run: Path | str, out: Path | str, *, to: To = "hf", dtype: Dtype | None = None, which: Which = "last"
) -> Exported:
    """Write a run's adapter into `out`: as an adapter in peft's format, or merged into its base.

    The folder gets its name only after it was read back and compared with what was trained, on logits, greedy text,
    tokenizer, template and stop tokens; the figures are in its certificate.json, and in the run folder's where that
    can be written. `dtype` is for the merged weights, the recipe's where None. Raises ProofError with nothing left
    where they differ, RunError where the run cannot be opened or `out` is taken or cannot be written.
    """
    out = Path(out).resolve()
    check_free(out)
    check_writable(out.parent, cure="give another folder to write into")
    opened = open_run(run, which=which)
    source = Source(
        base=opened.recipe.model,
        adapter=opened.adapter,
        tokenizer=opened.tokenizer,
        load=lambda asked: load_tuned(opened, dtype=asked).model,
        about=_about(opened, which),
    )
    probe = _probe(opened)
    if to == "adapter":
        certificate = export_adapter(source, out, probe=probe)
    else:
        certificate = export_hf(source, out, probe=probe, dtype=dtype or opened.recipe.model.dtype)
    return Exported(out, to, certificate, is_filed=_file(certificate, opened.run))


def _file(certificate: dict[str, Any], run: RunDir) -> bool:
    """Whether the run folder could take a copy; the export is whole and proven without it."""
    try:
        write_json(run.certificate, certificate)
    except OSError:
        return False
    return True


def _about(opened: OpenRun, which: Which) -> dict[str, Any]:
    model = opened.recipe.model
    return {
        "base": {"name": model.name_or_path, "revision": model.revision, "sha256": base_digest(model.name_or_path)},
        "trained_dtype": model.dtype,
        "adapter": {"which": which, "sha256": opened.adapter_sha256},
        "versions": {name: version(name) for name in ("fledge", "torch", "transformers", "peft")},
    }


def _probe(opened: OpenRun) -> Probe:
    """The first rows of what the run was validated or trained on, and their prompts; set texts where they are gone."""
    tokenizer = opened.tokenizer
    prefix = list(tokenizer.prefix_ids)
    rows: list[Sequence[int]] = [[*prefix, *encoded.ids] for encoded in tokenizer.encode_batch(_TEXTS)]
    prompts = [row[: len(row) // 2] for row in rows]
    recipe = opened.recipe
    try:
        data = prepare_training(recipe.data, tokenizer, seed=recipe.train.seed, progress=lambda done, total: None)
    except DataError:
        pass
    else:
        store = data.validation or data.train
        rows = [store.row(index).input_ids.tolist() for index in range(min(ROWS, len(store)))]
        asked = [store.prompt_ids(index) for index in range(min(PROMPTS, len(store)))]
        prompts = [prompt or row[: max(1, len(row) // 2)] for prompt, row in zip(asked, rows, strict=False)]
    return Probe(
        rows=fit_rows([row[:ROW_TOKENS] for row in rows], vocab_size=tokenizer.size),
        prompts=fit_rows([prompt[-ROW_TOKENS:] for prompt in prompts], vocab_size=tokenizer.size),
        stop_ids=tokenizer.stop_ids,
        answer_of=lambda model, prompt: (
            answers_of(model, tokenizer, prompts=[prompt], sampling=Sampling(ANSWER_TOKENS))[0].ids
        ),
    )
