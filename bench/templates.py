"""Checks the rule of where an answer begins and ends on every chat template in a folder.

    python bench/templates.py FOLDER [--rounds 300] [--json OUT]

FOLDER holds NAME.jinja files and may hold index.json with what is known of each template's tokenizer:
{NAME: {"bos_token": ..., "eos_token": ..., "added_tokens": [...], "stop_tokens": [...]}}. For each template random
conversations are rendered (a system message, tools and reasoning where the template takes them). Each trained span is
compared with what transformers' own rendering says that serving gives to the model and reads from it. The script prints
a line for each template and a tally.
"""

import argparse
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from fledge.data.formats.chat import chat_of
from fledge.data.rows import Refusal
from fledge.errors import DataError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.unit.data.served import conversation, disagreement, tokenizer_for, traits_of, unguarded

TOKEN = re.compile(r"<[|｜][^<>|｜{}' ]+[|｜]>|<(?:start|end)_of_turn>|</?s>|\[/?[A-Z_]+\]|<[A-Z_]+>|<(?:bos|eos)>")


def told(about: dict[str, Any], name: str) -> str | None:
    value = about.get(name)
    return value.get("value") if isinstance(value, dict) else value


def checked(path: Path, about: dict[str, Any], rounds: int) -> tuple[str, str]:
    """What became of a template, and details: right, wrong, or refused, where no conversation can be trained."""
    template = path.read_text(encoding="utf-8")
    added = [one["token"] if isinstance(one, dict) else one for one in about.get("added_tokens") or []]
    ordinary = [one["token"] for one in about.get("added_tokens") or [] if isinstance(one, dict) and not one["special"]]
    names = [*sorted(set(TOKEN.findall(template)) - set(ordinary)), *added, *(about.get("stop_tokens") or [])]
    tokens = [token for token in names if isinstance(token, str) and token not in ordinary]
    ends = {"bos": told(about, "bos_token") or "<s>", "eos": told(about, "eos_token") or "</s>"}
    tokenizer = tokenizer_for(template, tokens, **ends, ordinary=[token for token in ordinary if token in template])
    try:
        traits, chat = traits_of(tokenizer), chat_of(tokenizer, "completion")
    except DataError as error:
        return "refused", str(error)
    rng, trained, refused, wrong = random.Random(0), 0, Counter(), []
    for _ in range(rounds):
        messages, tools = conversation(rng, traits)
        if why := disagreement(tokenizer, messages, tools):
            wrong.append(why)
        rows = unguarded(chat)({"messages": messages, "tools": tools})
        if isinstance(rows, Refusal):
            refused[re.sub(r"message \d+|'[^']*'|\"[^\"]*\"", "", rows.what)[:80]] += 1
        else:
            trained += 1
    stops = sorted(token for token, index in tokenizer.special_tokens.items() if index in tokenizer.stop_ids)
    takes = "+".join(name for name in ("system", "tools", "reasoning") if getattr(traits, name)) or "turns only"
    detail = f"{trained} trained, {sum(refused.values())} refused; {takes}; stops {' '.join(stops)}"
    if wrong:
        return "wrong", f"{len(wrong)} of {rounds}: {wrong[0][:300]}"
    if not trained:
        return "refused", f"{detail}; {refused.most_common(1)[0][0]}"
    return "right", detail + (f"; {refused.most_common(1)[0][0]}" if refused else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    index = arguments.folder / "index.json"
    about = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    results = {}
    for path in sorted(arguments.folder.glob("*.jinja")):
        try:
            results[path.stem] = checked(path, about.get(path.stem, {}), arguments.rounds)
        except Exception as error:  # one broken template does not end the tally; it is in it
            results[path.stem] = ("failed", f"{type(error).__name__}: {error}")
        print(f"{path.stem}: {results[path.stem][0]}: {results[path.stem][1]}", flush=True)
    print(dict(Counter(result for result, _ in results.values())))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
