"""Whether a table of questions becomes a model that answers them: init, train, generate, chat, nothing by hand.

    python bench/faq.py --base MODEL_DIR [--out DIR] [--questions 20] [--seed 1]

The table has 300 questions and answers (faq_rows.py): semicolons, quotes, line breaks, an empty answer, a row twice.
`fledge init --model BASE --data faq.csv` writes the recipe, `fledge train` trains it as it stands. Then questions that
were trained (not those that the recipe holds out), drawn from a seed, are asked: each by a `fledge generate` alone,
and all by one `fledge chat`, with /reset between them. An answer is right where it is the row's, letter for letter,
white space around both left aside. The exit status is 0 where all are.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.faq_rows import as_csv, faq
from fledge.commands.open_run import open_run
from fledge.data.pipeline import prepare_training


def fledge(*words: str, folder: Path, given: str = "") -> str:
    """The standard output of a command; it ends the script where the command fails."""
    command = [sys.executable, "-m", "fledge", *words]
    done = subprocess.run(command, cwd=folder, input=given, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"fledge {words[0]} failed: {done.returncode}")
    return done.stdout


def trained_questions(run: Path) -> set[int]:
    """Which questions, by their place in the list, are trained: rows of the file that are not held out."""
    opened = open_run(run)
    data = prepare_training(
        opened.recipe.data, opened.tokenizer, seed=opened.recipe.train.seed, progress=lambda done, total: None
    )
    places = {question.strip(): place for place, (question, _) in enumerate(faq())}
    texts = [opened.tokenizer.decode(data.train.prompt_ids(row)) for row in range(len(data.train))]
    return {place for text in texts for question, place in places.items() if f"\n{question}" in text}


def by_generate(question: str, folder: Path) -> str:
    """The answer of a process of its own."""
    found = json.loads(fledge("generate", "run", "--prompt", question, "--json", folder=folder))
    return str(found["text"])


def by_chat(questions: list[str], folder: Path) -> list[str]:
    """The answers of one conversation, which forgets each question before the next."""
    lines = fledge("chat", "run", "--json", folder=folder, given="\n/reset\n".join(questions) + "\n")
    return [str(json.loads(line)["answer"]) for line in lines.splitlines()]


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--base", type=Path, required=True)
    ap.add_argument("--out", type=Path)
    ap.add_argument("--questions", type=int, default=20)
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()
    folder = args.out or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faq.csv").write_bytes(as_csv(faq()))
    began = time.perf_counter()
    if not (folder / "recipe.yaml").exists():
        fledge("init", "recipe.yaml", "--model", str(args.base.resolve()), "--data", "faq.csv", folder=folder)
    print((folder / "recipe.yaml").read_text())
    print(fledge("train", "recipe.yaml", "output.dir=run", folder=folder))
    print(f"init and train took {time.perf_counter() - began:.0f} s")
    chosen = random.Random(args.seed).sample(sorted(trained_questions(folder / "run")), args.questions)
    asked = [faq()[place] for place in chosen]
    chatted = by_chat([question for question, _ in asked], folder)
    right = 0
    for (question, answer), said in zip(asked, chatted, strict=True):
        written = by_generate(question, folder)
        both = [text.strip() == answer.strip() for text in (written, said)]
        right += all(both)
        print(f"{'right' if all(both) else f'generate: {written!r}, chat: {said!r}, row: {answer!r}'}  {question}")
    print(f"{right} of {args.questions} trained questions got their answers by generate and by chat")
    sys.exit(0 if right == args.questions else 1)


if __name__ == "__main__":
    main()
