"""`fledge export`: what was trained, written for others, compared and certified."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from fledge.commands.manifest import base_digest
from fledge.commands.open_adapter import open_tuned
from fledge.commands.open_run import OpenRun, check_base, load_tuned
from fledge.commands.opening import Opening, Which
from fledge.commands.progress import Say, say_nothing
from fledge.commands.writable import check_out
from fledge.config.model import ModelConfig
from fledge.data.pipeline import prepare_training, samples_of
from fledge.errors import DataError, RunError
from fledge.evaluation.generate import Sampling
from fledge.evaluation.generate import generate as answers_of
from fledge.exporting.behaviour import Probe, fit_rows
from fledge.exporting.certificate import file_copies
from fledge.exporting.folder import export_to
from fledge.exporting.merging import Asked
from fledge.exporting.readers import check_pythons
from fledge.exporting.targets.draft import Order
from fledge.exporting.targets.table import TARGETS
from fledge.exporting.trained import Source
from fledge.models.beside import note_for_others
from fledge.models.exceptions import NOTES
from fledge.models.kinds import Kind, kind_of
from fledge.models.locate import locate
from fledge.models.saved_words import marked
from fledge.models.tokenizer import Tokenizer
from fledge.release import VERSION

To = Literal["adapter", "hf", "gguf"]
Format = Literal["float32", "bfloat16", "float16", "f16", "bf16", "q8_0"]
ROWS, ROW_TOKENS, PROMPTS, ANSWER_TOKENS = 8, 128, 4, 24
_TEXTS = (
    "The quick brown fox jumps over the lazy dog, and then it rests.",
    "Below is an instruction that describes a task. Write a response that completes the request.",
    "def add(a, b):\n    return a + b\n",
    "1, 2, 3, 5, 8, 13, 21, 34, 55, 89",
)
"""Stand in for rows where the run's data are not there any more."""
_NOT_TRAINED_HERE = (
    "the adapter was opened by itself and not as a run's: that it lies on the base that it was trained on was told by "
    "the shapes of its tensors alone, and its tokenizer was compared with no training"
)
_BASES = {"dequantized": "the dequantised base", "full": "the base in full precision"}


@dataclass(frozen=True, slots=True)
class Extras:
    """What few exports need."""

    onto: Asked = "auto"
    """What a quantised run is merged onto; auto is what measures closest to the trained model."""
    prove_in: tuple[str, ...] = ()
    """Pythons of other environments: each of them reads the export too, is compared in the same way, and is named in
    the certificate by its versions."""


NO_EXTRAS = Extras()


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that was proven: its folder and its certificate, which lies in it.

    `is_filed` says that the run folder has a copy of the certificate: not where it cannot be written.
    """

    out: Path
    to: To
    certificate: dict[str, Any]
    is_filed: bool
    notices: tuple[str, ...] = ()
    """What a person should know of the run that was opened."""
    has_run: bool = True
    """Whether there is a run folder that could have a copy."""

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        filed: dict[str, Any] = {"certificate": self.certificate, "is_filed": self.is_filed}
        filed |= {"notices": list(self.notices)} if self.notices else {}
        return {"out": str(self.out), "to": self.to} | filed

    def findings(self) -> list[str]:
        """What was compared, a line each, for a person to read."""
        checks = self.certificate["checks"]
        logits, effect = checks["logits"], checks["effect"]
        lines = said_of_behaviour(checks)
        if "merge" in checks:
            lines.insert(0, _said_of_merging(checks["merge"]))
        if "choice" in checks:
            chosen, apart = checks["choice"]["onto"], [checks["choice"][kind]["mean_kl"] for kind in _BASES]
            told = ", ".join(f"{kl:.3g} onto {name}" for kl, name in zip(apart, _BASES.values(), strict=True))
            lines.insert(0, f"merged onto {_BASES[chosen]}: mean KL to the trained model {told}")
        if "on_full_precision" in checks:
            far = checks["on_full_precision"]["mean_kl"]
            lines.append(f"on the base in full precision the adapter is {far:.3g} (mean KL) from the trained model")
        if logits["mean_kl"] > 0.1 * effect["mean_kl"] > 0:
            share = logits["mean_kl"] / effect["mean_kl"]
            cure = "; --dtype float32 avoids it" if self.to == "hf" else ""
            lines.append(f"rounding moves the model {share:.0%} as far as the training did{cure}")
        lines += map(said_of_reader, self.certificate.get("readers", []))
        lines += self.certificate.get("remarks", [])
        if not self.is_filed and self.has_run:
            lines.append("the run folder cannot be written: the certificate is in the export alone")
        return lines


def said_of_behaviour(checks: dict[str, Any]) -> list[str]:
    """What the export does beside what was trained, a line each, for a person."""
    logits, text = checks["logits"], checks["text"]
    return [
        f"logits: largest difference {_with_limit(logits)}, mean KL {logits['mean_kl']:.3g} "
        f"(allowed {logits['tolerance']['mean_kl']:.2g}) at {logits['positions']} positions",
        f"greedy text: {text['same']} of {text['prompts']} the same" + f", {text['ties']} tied" * bool(text["ties"]),
    ]


def said_of_reader(reader: dict[str, Any]) -> str:
    """What an environment has read, for a person."""
    versions, text = reader["versions"], reader["text"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("transformers", "peft") if name in versions)
    tied = f", {text['ties']} tied" * bool(text["ties"])
    return (
        f"read by {named}: largest difference {_with_limit(reader['logits'])}, "
        f"greedy text {text['same']} of {text['prompts']} the same{tied}"
    )


def _said_of_merging(found: dict[str, Any]) -> str:
    if found["how"] == "layers":
        return (
            f"merging in float32: the products of {found['layers']} layers differ by {found['relative']:.2g} at most "
            f"(allowed {found['tolerance']['relative']:.2g}); the whole model in float32 has no room in memory"
        )
    return f"merging in float32: largest difference {_with_limit(found)}"


def _with_limit(figures: dict[str, Any]) -> str:
    """The largest difference of a logit, and the limit beside it, which is a share of the largest logit."""
    allowed = figures["tolerance"]["relative"]
    return f"{figures['max_abs']:.3g}, {figures['relative']:.2g} of the largest logit (allowed {allowed:.2g})"


def export(
    run: Path | str,
    out: Path | str,
    *,
    to: To = "hf",
    dtype: Format | None = None,
    extras: Extras = NO_EXTRAS,
    opening: Opening | None = None,
    say: Say = say_nothing,
) -> Exported:
    """Write the adapter of a run, or a plain one from its folder, into `out`: as an adapter in peft's format, or merged
    into its base, as a Hugging Face folder or as a GGUF file.

    The folder gets its name only after a fresh process without Fledge has loaded it and what it does there was compared
    with what was trained: logits, greedy text, tokenizer, template, BOS and stop tokens. The figures are in its
    certificate.json and, for people, certificate.html, and copies of both in the run folder where that can be written.
    `dtype` is for the merged weights, the recipe's where None. `say` gets a line for each part of the work that
    begins. With a `base_path` in `opening` the certificate calls a local base by that place, and a hub id stays the
    base's name. Raises ProofError with nothing left where they differ, RunError where the run cannot be opened, an
    option has no effect, or `out` is taken or cannot be written.
    """
    out = Path(out).resolve()
    check_out(out)
    pythons = check_pythons(extras.prove_in, kind=to)
    opening = opening or Opening()
    opened = open_tuned(run, opening)
    check_base(opened)
    order = order_for(opened.recipe.model, to, dtype=dtype, onto=extras.onto)
    source = source_of(opened, opening.chosen, say=say)
    say("preparing the rows to compare on")
    certificate = export_to(to, source, out=out, probe=probe_of(opened), order=order, pythons=pythons)
    notices = (*opened.notices, *(_for_others(opened) if to == "adapter" else ()))
    is_filed = opened.plain is None and file_copies(certificate, opened.run)
    return Exported(out, to, certificate, is_filed, notices, has_run=opened.plain is None)


def _for_others(opened: OpenRun) -> Iterator[str]:
    """What to know of the base where the adapter is put on it without Fledge."""
    model = opened.recipe.model
    note = note_for_others(locate(model.name_or_path), name=model.name_or_path, revision=model.revision)
    if note:
        yield note


def order_for(base: ModelConfig, to: To, *, dtype: Format | None = None, onto: Asked = "auto") -> Order:
    """How an export is wanted. Raises RunError for an option that would have no effect."""
    target = TARGETS[to]
    if dtype is not None and dtype not in target.formats:
        cure = f"use {', '.join(target.formats)}" if target.formats else "leave --dtype away: an adapter is what it is"
        raise RunError(f"{dtype} is no number format of --to {to}", where="--dtype", cure=cure)
    if onto != "auto" and not (target.is_merged and base.quantization != "none"):
        what = f"--to {to} merges nothing" if not target.is_merged else "this run's base is not quantised"
        raise RunError(f"{what}, so there is nothing to choose", where="--onto", cure="leave --onto away")
    return Order(dtype=dtype or target.own_format(base.dtype), onto=onto)


def source_of(opened: OpenRun, which: Which, *, say: Say = say_nothing) -> Source:
    """What is exported of a run; `say` gets a line for each part of the work."""
    kind = kind_of(opened.recipe.model)
    return Source(
        base=opened.recipe.model,
        adapter=opened.adapter,
        tokenizer=opened.tokenizer,
        load=lambda asked, kind: load_tuned(opened, dtype=asked, kind=kind, say=say).model,
        about=_about(opened, which, loads_with=kind.auto),
        remarks=_remarks(opened, kind),
        say=say,
    )


def _remarks(opened: OpenRun, kind: Kind) -> tuple[str, ...]:
    """What else a person should know who reads the certificate."""
    notes = [NOTES[kind.model]] if kind.model in NOTES else []
    return (*notes, *([] if opened.plain is None else [_NOT_TRAINED_HERE]))


def _about(opened: OpenRun, which: Which, *, loads_with: str) -> dict[str, Any]:
    model = opened.recipe.model
    base = {"name": opened.base_name, "revision": model.revision, "quantization": model.quantization}
    base |= {"loads_with": loads_with}
    return {
        "base": base | {"sha256": base_digest(model.name_or_path)},
        "trained_dtype": model.dtype,
        "adapter": {"which": which, "sha256": opened.adapter_sha256},
        "versions": {"fledge": VERSION} | {name: version(name) for name in ("torch", "transformers", "peft")},
    }


def probe_of(opened: OpenRun) -> Probe:
    """The first rows of what the run was validated or trained on, and their prompts; set texts where they are gone."""
    tokenizer = opened.tokenizer
    prefix = list(tokenizer.prefix_ids)
    rows: list[Sequence[int]] = [[*prefix, *encoded.ids] for encoded in tokenizer.encode_batch(_TEXTS)]
    samples: list[tuple[str, list[int]]] = []
    prompts, origin = [row[: len(row) // 2] for row in rows], "set texts"
    recipe = opened.recipe
    if opened.plain is not None and opened.plain.recipe is None:
        return _probe(tokenizer, rows, prompts, origin=origin, samples=samples)
    try:
        data = prepare_training(recipe.data, tokenizer, seed=recipe.train.seed, progress=lambda done, total: None)
    except DataError:
        pass
    else:
        store, samples = data.validation or data.train, samples_of(data)
        origin = "validation rows" if data.validation else "training rows"
        rows = [store.row(index).input_ids.tolist() for index in range(min(ROWS, len(store)))]
        asked = [store.prompt_ids(index) for index in range(min(PROMPTS, len(store)))]
        prompts = [prompt or row[: max(1, len(row) // 2)] for prompt, row in zip(asked, rows, strict=False)]
    return _probe(tokenizer, rows, prompts, origin=origin, samples=samples)


def _probe(
    tokenizer: Tokenizer,
    rows: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]],
    *,
    origin: str,
    samples: Sequence[tuple[str, list[int]]],
) -> Probe:
    return Probe(
        rows=fit_rows([row[:ROW_TOKENS] for row in rows], vocab_size=tokenizer.size),
        prompts=fit_rows([prompt[-ROW_TOKENS:] for prompt in prompts], vocab_size=tokenizer.size),
        answers_of=lambda model, asked: [
            answer.ids for answer in answers_of(model, tokenizer, prompts=asked, sampling=Sampling(ANSWER_TOKENS))
        ],
        max_new_tokens=ANSWER_TOKENS,
        origin=origin,
        samples=tuple((text, tuple(ids)) for text, ids in samples),
        special=tuple((text, tuple(ids)) for text, ids in marked(tokenizer)),
    )
