"""The certificate as a page that people can read: one HTML file that needs no network and no script."""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

TEMPLATE = Path(__file__).with_name("certificate.html.jinja")
_FORMS = {
    "adapter": "An adapter for plain peft",
    "hf": "A merged model in a Hugging Face folder",
    "gguf": "A merged model in a GGUF file",
}
_TITLES = {
    "logits": "The export against the trained model",
    "float32": "The same in float32, where no rounding hides anything",
    "merge": "Merging the adapter into the base, both in float32",
}
_LAYERS = "Merging the adapter into the base, layer by layer in float32"
_ON_FULL_PRECISION = "The adapter in plain peft against Fledge's own, both on the base in full precision"
_BASES = {"dequantized": "the dequantised base", "full": "the base in full precision"}

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure beside its limit."""

    name: str
    figure: float
    limit: float

    @property
    def percent(self) -> float:
        """The figure as a share of its limit, for the length of a bar; what is not nothing stays visible."""
        share = 100 * self.figure / self.limit
        return min(100.0, max(share, 1.0)) if self.figure > 0 else 0.0


def page_of(certificate: Mapping[str, Any]) -> str:
    """The page of a certificate. Everything in it is escaped: prompts and answers are other people's text."""
    checks = certificate["checks"]
    titles = _TITLES | ({"logits": _ON_FULL_PRECISION} if "on_full_precision" in checks else {})
    titles |= {"merge": _LAYERS} if _is_by_layers(checks) else {}
    return _template().render(
        certificate=certificate,
        checks=checks,
        form=_FORMS.get(certificate["kind"], certificate["kind"]),
        groups=[(title, _bars(checks[name]), checks[name]) for name, title in titles.items() if name in checks],
        answers=list(zip(checks["text"]["answers"], checks["text"]["parted_at"], strict=True)),
        times_less=_times_less(checks),
        bases=_BASES,
    )


def _is_by_layers(checks: Mapping[str, Any]) -> bool:
    """Whether merging was proven on each layer's products, for want of room for the whole model in float32."""
    return bool(checks.get("merge", {}).get("how") == "layers")


def _bars(figures: Mapping[str, Any]) -> list[Bar]:
    limits = figures["tolerance"]
    if "mean_kl" not in figures:
        return [
            Bar("largest difference of a product, as a share of its terms", figures["relative"], limits["relative"])
        ]
    return [
        Bar("mean KL divergence", figures["mean_kl"], limits["mean_kl"]),
        Bar("largest difference of a logit, as a share of the largest logit", figures["relative"], limits["relative"]),
    ]


def _times_less(checks: Mapping[str, Any]) -> float | None:
    """How many times further the training moved the base than the export is from what was trained."""
    apart, moved = checks["logits"]["mean_kl"], checks["effect"]["mean_kl"]
    return moved / apart if apart > 0 else None


def _number(value: float) -> str:
    """Three digits that count, as people write numbers."""
    if value == 0:
        return "0"
    if value >= 100:
        return f"{round(value, 2 - math.floor(math.log10(value))):,.0f}"
    if value >= 1e-3:
        return f"{value:.3g}"
    digits, _, power = f"{value:.2e}".partition("e")
    raised = f"10{str(int(power)).translate(_RAISED)}"
    return raised if digits == "1.00" else f"{digits} × {raised}"


def _visible(text: str) -> str:
    """Text without control characters, which a page has no signs for; new line and tab stay."""
    return "".join(sign if sign in "\n\t" or unicodedata.category(sign) != "Cc" else "\ufffd" for sign in text)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"number": _number, "visible": _visible}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
