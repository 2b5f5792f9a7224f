"""Results of bench/quality.py that outlive the machine: scores without texts, small enough to be committed.

`keep` writes them into a folder, `restore` puts them back where a judging would have written them. Of each answer a
digest is kept, so that answers can be compared with each other. Scores are rounded to six digits.
"""

import hashlib
import json
from pathlib import Path


def digest_of(row: dict) -> str:
    """What stands for the text of a judged row's answer."""
    return str(row["digest"]) if "digest" in row else hashlib.sha256(row["answer"].encode()).hexdigest()[:16]


def keep(out: Path, kept: Path, same: dict[str, dict[str, dict]]) -> None:
    """Write what is judged in `out` and not in `kept` yet, and how alike the trainings were."""
    for file in sorted(out.glob("*/*/judged.json")):
        place = kept / file.parent.parent.name / f"{file.parent.name}.json"
        if place.exists():
            continue
        found = json.loads(file.read_text())
        rows = [{**row, "digest": digest_of(row)} for row in found["rows"]]
        names = [name for name in rows[0] if name != "answer"]
        columns = {name: [_short(row[name]) for row in rows] for name in names}
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({**found, "rows": columns}, separators=(",", ":")))
    for task, seeds in same.items():
        if seeds:
            (kept / task).mkdir(parents=True, exist_ok=True)
            (kept / task / "same.json").write_text(json.dumps(seeds))


def restore(kept: Path, out: Path) -> None:
    """Put every kept result into `out`, where none is yet."""
    for file in sorted(kept.glob("*/*.json")):
        place = out / file.parent.name / file.stem / "judged.json"
        if file.stem == "same" or place.exists():
            continue
        found = json.loads(file.read_text())
        columns = found["rows"]
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({**found, "rows": rows}))


def same_before(kept: Path | None, task: str) -> dict[str, dict]:
    """How alike the trainings of kept results were, by seed."""
    file = None if kept is None else kept / task / "same.json"
    return json.loads(file.read_text()) if file is not None and file.exists() else {}


def _short(value: object) -> object:
    return round(value, 6) if isinstance(value, float) else value
