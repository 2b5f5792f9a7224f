"""A certificate in tables that people understand, as part of a model card."""

from collections.abc import Iterator, Mapping
from typing import Any

from fledge.exporting.markdown import number, table, text

_MEANINGS = {
    "merge": "merging the adapter, in float32, leaves what the model computes as it was",
    "choice": "onto which form of the quantised base it was merged",
    "files": "every tensor that is read back has the bits that were written",
    "logits": "scores of the next token, the export against the model as it was trained",
    "float32": "the same in float32, where no rounding can hide a difference",
    "on_full_precision": "the same on the base in full precision",
    "text": "greedy answers, the export's against the trained model's",
    "stops": "the tokens that end an answer",
    "tokenizer": "vocabulary, rules and chat template are those of the training",
    "template": "conversations are rendered as in the training",
    "bos": "texts begin as in the training",
    "effect": "for comparison: how far the training moved the base",
}
_WORDS = {
    "max_abs": "largest difference",
    "relative": "as a share of the largest score",
    "mean_abs": "mean difference",
    "mean_kl": "mean KL in nats",
    "max_kl": "largest KL",
    "positions": "positions",
}
_MOST_FIGURES, _LONGEST_LIST, _LONGEST_WORDS = 8, 4, 40
_NAMES_ONLY = 12
"""Signs of a sha256 that are shown: enough to compare by eye."""


def certificate_lines(certificate: Mapping[str, Any]) -> list[str]:
    """What was compared, what was found and what was allowed, a line for each check."""
    checks = certificate.get("checks", {})
    names = sorted(checks, key=lambda name: list(_MEANINGS).index(name) if name in _MEANINGS else len(_MEANINGS))
    rows = [
        [text(_MEANINGS.get(name, name)), _figures(checks[name]), _allowed(checks[name])]
        for name in names
        if isinstance(checks[name], Mapping)
    ]
    return [
        "The files here were loaded again and compared with the model as it was trained, before they were sent. "
        "`certificate.json` holds every figure, and the sha256 of every file.",
        "",
        *table(["compared", "found", "allowed"], rows),
    ]


def versions_lines(manifest: Mapping[str, Any], certificate: Mapping[str, Any]) -> list[str]:
    """The packages that trained and that exported."""
    trained, exported = manifest.get("versions", {}), certificate.get("versions", {})
    names = list(dict.fromkeys([*trained, *exported]))
    rows = [[text(name), text(trained.get(name, "-")), text(exported.get(name, "-"))] for name in names]
    return table(["package", "trained with", "exported with"], rows)


def _figures(check: Mapping[str, Any]) -> str:
    shown = [f"{_WORDS.get(name, text(name.replace('_', ' ')))} {value}" for name, value in _flat(check, "")]
    return ", ".join(shown[:_MOST_FIGURES]) or "-"


def _flat(check: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """The figures of a check by name; long lists, long texts and what rows of the data said are left to the file."""
    for name, value in check.items():
        if name == "tolerance":
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        elif isinstance(value, str):
            is_digest = len(value) == 64 and all(sign in "0123456789abcdef" for sign in value)
            if is_digest or len(value) <= _LONGEST_WORDS:
                yield prefix + name, text(value[:_NAMES_ONLY] if is_digest else value)
        elif isinstance(value, list):
            if 0 < len(value) <= _LONGEST_LIST and all(isinstance(each, int | float) for each in value):
                yield prefix + name, " ".join(map(number, value))
        elif value is not None:
            yield prefix + name, number(value)


def _allowed(check: Mapping[str, Any]) -> str:
    limits = check.get("tolerance")
    if not isinstance(limits, Mapping):
        return "-"
    return ", ".join(
        f"{_WORDS.get(name, text(name))} {number(limit)}" for name, limit in limits.items() if name in check
    )
