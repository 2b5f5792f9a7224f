"""Does Fledge train every family of transformers exactly? Tiny random bases, Fledge beside plain transformers and peft.

    python bench/families.py --out DIR [--only NAME ...] [--ways default padded single] [--jobs N] [--resume]
        [--page docs/models.md]

The Fledge of PYTHONPATH is tested. Each base gets processes of its own, forked from one that has imported the
libraries: one that builds, one for each way of training, one that compares. DIR/results.jsonl has a line for each base
and way, and DIR/table.md the table. --resume goes on with the names that results.jsonl does not have.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TRANSFORMERS_VERBOSITY": "error"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import transformers

import fledge
from bench.families_bases import NotBuilt, all_names, build, write_rows
from bench.families_page import page
from bench.families_runs import HELD_OUT, ROWS, WAYS, compare, last_line, train_one
from bench.families_table import markdown, summary

LIMITS = {"build": 120, "train": 240, "compare": 400}
"""Seconds."""
MEMORY = 10 << 30
"""Address space of a process."""
BUG = "this is a bug in Fledge"


def in_process(work: Callable[[], Any], *, seconds: int, note: Path) -> dict[str, Any]:
    """What `work` returns, computed in a forked process: {"value"} or {"refused"} or {"crash"}."""
    note.unlink(missing_ok=True)
    child = multiprocessing.get_context("fork").Process(target=_guarded, args=(work, seconds, note))
    child.start()
    child.join(seconds + 20)
    if child.is_alive():
        child.kill()
        child.join()
    if note.exists():
        return dict(json.loads(note.read_text()))
    is_late = child.exitcode in (-signal.SIGALRM, -signal.SIGKILL)
    return {"crash": f"no answer within {seconds} s" if is_late else f"the process ended with {child.exitcode}"}


def _guarded(work: Callable[[], Any], seconds: int, note: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.alarm(seconds)
    warnings.simplefilter("ignore")
    try:
        found = {"value": work()}
    except NotBuilt as error:
        found = {"refused": str(error)}
    except BaseException as error:
        found = {"crash": last_line(error)}
    note.write_text(json.dumps(found))
    os._exit(0)


def run_name(name: str, ways: list[str], folder: Path) -> list[dict[str, Any]]:
    """The results of one base, a dict for each way."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_rows(folder / "rows.jsonl", count=ROWS, seed=1)
    write_rows(folder / "held-out.jsonl", count=HELD_OUT, seed=2)
    note = folder / "note.json"
    built = in_process(lambda: build(name, folder / "base"), seconds=LIMITS["build"], note=note)
    if "value" not in built:
        return [{"name": name, "way": way, "built": False, "why": _either(built)} for way in ways]
    results = [_train(name, way, folder) for way in ways]
    done = [result["way"] for result in results if result["trained"]]
    compared: dict[str, Any] = {}
    if done:
        compared = in_process(lambda: compare(folder, done), seconds=LIMITS["compare"], note=note)
    for result in results:
        if result["trained"]:
            result |= compared["value"][result["way"]] if "value" in compared else {"reference": _either(compared)}
    return results


def _either(found: dict[str, Any]) -> str:
    return str(found.get("refused") or found.get("crash"))


def _train(name: str, way: str, folder: Path) -> dict[str, Any]:
    start = time.perf_counter()
    found = in_process(lambda: train_one(folder, way), seconds=LIMITS["train"], note=folder / "note.json")
    said_file = folder / f"{way}.txt"
    said = said_file.read_text() if said_file.exists() else ""
    result = {"name": name, "way": way, "built": True, "seconds": round(time.perf_counter() - start, 1)}
    code = found.get("value")
    result["trained"] = code == 0
    if "crash" in found or code == 70 or BUG in said:
        result["crash"] = found.get("crash") or _message(said)
    elif code:
        result["refused"] = _message(said)
    return result


def _message(said: str) -> str:
    """What an error says, in one line, without what was said before."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = next((n for n, line in enumerate(lines) if line.lower().startswith("fledge:")), max(len(lines) - 3, 0))
    return " | ".join(lines[first:])[:700]


def run_share(names: list[str], ways: list[str], out: Path) -> None:
    """One base after the other; each line is written whole."""
    os.environ["XDG_CACHE_HOME"] = str(out / "cache")
    for name in names:
        folder = out / "work" / name
        results = run_name(name, ways, folder)
        with (out / "results.jsonl").open("a") as file:
            file.write("".join(json.dumps(result) + "\n" for result in results))
        for result in results:
            print(name, result["way"], summary(result), flush=True)
        if all(result.get("exact") or not result["built"] for result in results):
            shutil.rmtree(folder)


def read_results(out: Path) -> list[dict[str, Any]]:
    """All lines; the last one of a base and way counts."""
    with contextlib.suppress(FileNotFoundError):
        lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
        return list({(line["name"], line["way"]): line for line in lines}.values())
    return []


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--only", nargs="+", default=all_names(), metavar="NAME")
    ap.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    ap.add_argument("--jobs", type=int, default=1)
    ap.add_argument("--resume", action="store_true", help="go on with the names that results.jsonl does not have")
    ap.add_argument("--page", type=Path, help="write the results of the default recipe for people")
    args = ap.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    unknown = set(args.only) - set(all_names())
    if unknown:
        ap.error(f"no such base: {', '.join(sorted(unknown))}")
    print(f"testing {Path(fledge.__file__).parent} with transformers {transformers.__version__}", flush=True)
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    done = {(line["name"], line["way"]) for line in read_results(args.out)} if args.resume else set()
    names = [name for name in args.only if not all((name, way) in done for way in args.ways)]
    shares = [names[job :: args.jobs] for job in range(args.jobs)]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=run_share, args=(share, args.ways, args.out)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    chosen = [line for line in read_results(args.out) if line["name"] in args.only and line["way"] in args.ways]
    (args.out / "table.md").write_text(markdown(chosen))
    print(markdown(chosen).partition("\n\n| family")[0])
    if args.page:
        shown = [line for line in chosen if line["way"] == "default"]
        args.page.write_text(page(shown, version=transformers.__version__))


if __name__ == "__main__":
    main()
