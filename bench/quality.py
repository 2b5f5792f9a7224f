"""Whether training helps a real model, and whether Fledge trains it as plain transformers and peft do.

    python bench/quality.py --base MODEL_DIR --alpaca FILE --out DIR [--only alpaca records] [--rows 2000]
        [--held-out 500] [--seeds 1 2 3] [--tools fledge peft] [--jobs 2] [--stop-after HOURS] [--pilot] [--kept DIR]

Two tasks, each trained by both tools from each seed on the same rows (quality_rows.py), and judged by one judge
(quality_judge.py) on held-out rows beside the base without an adapter:

- alpaca: 2,000 rows of Stanford Alpaca whose prompt has at most 80 tokens with what the template writes around it, and
  whose answer has at most 64 with its end token (so short that all fits on two cores; 55 % of the rows are), no prompt
  twice. 500 others are held out.
- records: 2,000 sentences about a payment, each with one line of JSON as its answer, made from a seed
  (quality_records.py). 500 others, with surnames and cities of their own, are held out.

Measures, all per held-out row, fixed before the first run that counts:

- loss: the sum of token losses / the number of trained tokens (the answer and its end token), over all rows.
- exact: the share of answers equal to the reference, white space around both left aside.
- rouge1, rouge2, rougeL: F-measures of the package rouge-score with stemming.
- well_formed (records): the answer is one line, white space around it left aside, and one JSON object with exactly the
  five keys, each once, in any order; person, place, date and currency are texts that are not empty, date is a day of
  the calendar as YYYY-MM-DD, currency is three capitals A to Z, amount is a JSON number.
- fields (records): of the five fields the share that is right: in a JSON object on one line, texts equal letter for
  letter, the amount by value as a JSON number. Where the answer is no such object, none is.
- all_fields (records): the share of well-formed answers in which all five are right, of all answers.

Higher is better but for the loss. A tuned model's figure is the mean over the seeds. Intervals are 95 % percentile
intervals of 10,000 bootstrap resamples, paired: a resample draws held-out rows and, independently of them, seeds, both
with replacement, and takes the same ones for all models; a difference is taken row by row and, between the tools,
seed by seed. A seed decides the start of A and the order of rows, not which rows there are. The base has no seed. Three
seeds are few: drawing from them makes the intervals wider than rows alone would, but not as wide as many seeds might;
the figures of each seed and the intervals over rows alone (these three seeds taken as given) are in the output too.
"Better" means that the interval of tuned - base is on the good side of 0; "equal" that that of Fledge - peft holds 0.

What both trainings share: rows, their order, rendered text and mask, r, alpha, targets, learning rate, schedule, steps,
AdamW, clipping, number formats (quality_settings.py), and the start of A. The script compares the counts of trained
tokens of each step and the saved starts, and prints how far apart the starts and the steps' losses are. What differs:
Fledge packs rows and shares what they begin with, computes a step by its own engine, adds the adapter's part in float32
and rounds once, where peft rounds the product first; so losses part in the last digits of bfloat16.

bfloat16 is used throughout, for training and for the judge, for it was faster here (one core, AVX512-bf16: training by
peft 180 tokens/s beside 130 in float32, a decoding step of 64 rows 0.28 s beside 0.34).
All of it takes about 2.5 hours on two such cores that do nothing else, two parts at a time: of 18,000 seconds of one
core 12,300 are training (a seed of alpaca 900 by peft and 600 by Fledge, of records 1,650 and 950) and 5,700 judging
(350 to 450 a model). These are processor times of a few steps and answers, taken while others used the machine.

The settings were chosen on other rows and another seed (`--pilot`, seed 101, Fledge alone, 64 held-out rows): 13 steps
on 208 records took the loss from 0.70 to 0.06, and 53 % were right in all fields; 20 steps on 320 Alpaca rows took it
from 2.10 to 1.94.

Each part (the training or the judging of one model) is a process of its own; `--jobs` of them run at a time, each with
its share of the cores. A part whose result is in DIR is not run again, so the script can be stopped and started again;
`--stop-after` starts no part that would end later. `--kept` names a folder for results without texts, which take the
place of parts in a later run, on another machine too (both tools' parts of a seed should be of one). DIR gets
quality.json (scores of every row, seed and model, without the texts), log.md and readme.md (tables); the answers are in
DIR/TASK/NAME/judged.json.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from transformers import AutoTokenizer

from bench.quality_kept import restore
from bench.quality_parts import Part, run_parts
from bench.quality_rows import rows_of, write_rows
from bench.quality_settings import HELD_OUT, ROWS, SEEDS, TASKS, TOOLS, TRAINING, Sizes, as_json
from bench.quality_table import write_tables

HERE = Path(__file__).resolve().parent


def parse() -> argparse.Namespace:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--base", type=Path, required=True, help="a model folder with a chat template")
    ap.add_argument("--alpaca", type=Path, help="alpaca_data.json or .json.gz")
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--only", nargs="+", default=list(TASKS), choices=list(TASKS))
    ap.add_argument("--rows", type=int, default=ROWS)
    ap.add_argument("--held-out", type=int, default=HELD_OUT)
    ap.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    ap.add_argument("--tools", nargs="+", default=list(TOOLS), choices=TOOLS)
    ap.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="parts that run at a time")
    ap.add_argument("--stop-after", type=float, metavar="HOURS", help="start no part that would end later")
    ap.add_argument("--kept", type=Path, help="a folder of results without texts, to go on from and to add to")
    ap.add_argument("--pilot", action="store_true", help="other rows than the table's, to choose settings with")
    return ap.parse_args()


def settle(out: Path, settings: dict) -> None:
    """Keep the settings of a folder of results; refuse a folder that was begun with others."""
    file = out / "settings.json"
    if file.exists() and json.loads(file.read_text()) != settings:
        raise SystemExit(f"{file} was made with other settings: name another --out, or remove that folder")
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=1))


def write_recipe(folder: Path, base: Path, *, task: str, seed: int) -> Path:
    """Fledge's recipe for one training; JSON is YAML too."""
    settings = TASKS[task]
    recipe = {
        "model": {"name_or_path": str(base), "dtype": TRAINING.dtype},
        "data": {
            "train": {"path": str(folder.parent / "train.jsonl"), "format": "chat"},
            "max_length": TRAINING.max_length,
            "overlong": "error",
        },
        "lora": {"r": TRAINING.r, "lora_alpha": TRAINING.lora_alpha, "target_modules": TRAINING.target_modules},
        "train": {
            "num_epochs": settings.num_epochs,
            "global_batch_size": TRAINING.rows_per_step,
            "learning_rate": settings.learning_rate,
            "lr_scheduler": "cosine",
            "warmup_ratio": TRAINING.warmup_ratio,
            "weight_decay": TRAINING.weight_decay,
            "adam_betas": list(TRAINING.adam_betas),
            "adam_eps": TRAINING.adam_eps,
            "max_grad_norm": TRAINING.max_grad_norm,
            "seed": seed,
        },
        "output": {"dir": str(folder / "run")},
    }
    file = folder / "recipe.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(recipe, indent=1))
    return file


def training_of(folder: Path, base: Path, *, task: str, seed: int, tool: str) -> Part:
    """The part that trains one model."""
    if tool == "fledge":
        command = ["-m", "fledge", "train", str(write_recipe(folder, base, task=task, seed=seed))]
        return Part(f"{task} seed {seed} fledge train", command, folder / "run" / "summary.json", ("train", task, tool))
    command = [str(HERE / "quality_peft.py"), "--base", str(base), "--task", task, "--seed", str(seed)]
    command += ["--rows", str(folder.parent / "train.jsonl"), "--out", str(folder)]
    return Part(f"{task} seed {seed} peft train", command, folder / "steps.json", ("train", task, tool))


def judging_of(folder: Path, base: Path, *, task: str, adapter: Path | None, after: Part | None) -> Part:
    """The part that judges one model, once it is trained."""
    command = [str(HERE / "quality_judge.py"), "--base", str(base), "--task", task]
    command += ["--rows", str(folder.parent / "held_out.jsonl"), "--out", str(folder / "judged.json")]
    command += ["--adapter", str(adapter)] if adapter else []
    kind = ("judge", task, "tuned" if adapter else "base")
    return Part(f"{task} {folder.name} judge", command, folder / "judged.json", kind, after)


def parts_of(args: argparse.Namespace, task: str) -> list[Part]:
    """The base's judging, then seed by seed both tools' training and judging."""
    parts = [judging_of(args.out / task / "base", args.base, task=task, adapter=None, after=None)]
    for seed in args.seeds:
        for tool in args.tools:
            folder = args.out / task / f"seed-{seed}-{tool}"
            trained = training_of(folder, args.base, task=task, seed=seed, tool=tool)
            adapter = (folder / "run" if tool == "fledge" else folder) / "adapter"
            parts += [trained, judging_of(folder, args.base, task=task, adapter=adapter, after=trained)]
    return parts


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the parts under way are ended too
    args = parse()
    args.base, args.out = args.base.resolve(), args.out.resolve()
    sizes = Sizes(args.rows, args.held_out, args.pilot)
    settings = as_json(sizes, args.base)
    for folder in (args.out, args.kept):
        if folder is not None:
            settle(folder, settings)
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    for task in args.only:
        train, held_out = (args.out / task / f"{name}.jsonl" for name in ("train", "held_out"))
        if not (train.exists() and held_out.exists()):
            rows = rows_of(task, sizes, tokenizer=tokenizer, alpaca=args.alpaca)
            write_rows(train, rows[0])
            write_rows(held_out, rows[1])
    if args.kept is not None:
        restore(args.kept, args.out)
    parts = [part for task in args.only for part in parts_of(args, task)]
    judged = [part.after for part in parts if part.after is not None and part.is_done]
    parts = [part for part in parts if part not in judged]
    scale = {"train": args.rows / ROWS, "judge": args.held_out / HELD_OUT}
    try:
        is_done = run_parts(parts, jobs=args.jobs, scale=scale, stop_after=args.stop_after)
    finally:
        print(write_tables(args.out, settings, args.kept))
    if not is_done:
        sys.exit("not all parts are done: run the same command again")


if __name__ == "__main__":
    main()
