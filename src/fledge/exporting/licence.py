"""The licence fields of a model card: what the base's own card says, and nothing that it does not."""

import re
from dataclasses import dataclass
from pathlib import Path

from fledge.exporting.markdown import text

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
_KEY = re.compile(r"^(license|license_name|license_link):[ \t]+(.+?)[ \t]*$", re.MULTILINE)
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,60}")
_PLAIN = re.compile(r"[A-Za-z0-9][^\x00-\x1f\x7f\"'`#<>|\\]{0,200}")
_LONGEST_CARD = 1 << 20


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence as a card's front matter has it; all None where none is known."""

    name: str | None = None
    """The hub's identifier, such as apache-2.0 or other."""
    full_name: str | None = None
    link: str | None = None

    def sentence(self, base: str) -> str:
        """What the card's page says of it. `base` is Markdown."""
        if self.name is None:
            return f"The licence of the base, {base}, governs what may be done with this, beside those of the data."
        said = text(self.full_name or self.name)
        return f"The base's own card says {said}. It governs what may be done with this, beside those of the data."


def licence_of(base: Path | None) -> Licence:
    """What the front matter of the README.md in a base's folder says, where it says it in one plain line.

    Nothing is guessed: a list, a value in another form or a card without front matter is no answer.
    """
    path = base / "README.md" if base else None
    if path is None or not path.is_file() or path.stat().st_size > _LONGEST_CARD:
        return Licence()
    found = _FRONT_MATTER.match(path.read_text(encoding="utf-8", errors="replace"))
    said = {key: value.strip("\"'") for key, value in _KEY.findall(found[1])} if found else {}
    name = said.get("license", "")
    if not _IDENTIFIER.fullmatch(name):
        return Licence()
    full_name, link = said.get("license_name", ""), said.get("license_link", "")
    # a link without a host leads to a file beside the base's card, which does not come along
    is_link = bool(_PLAIN.fullmatch(link)) and link.startswith(("https://", "http://"))
    return Licence(name.lower(), full_name if _PLAIN.fullmatch(full_name) else None, link if is_link else None)
