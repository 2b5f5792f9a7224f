"""An encoder-decoder's run is measured, asked and refused a conversation as its kind needs it."""

import json
from pathlib import Path
from statistics import fmean

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from fledge.commands.chat import chat
from fledge.commands.evaluate import Question, evaluate
from fledge.commands.generate import Prompt, Sampling, generate
from fledge.commands.open_run import load_tuned, open_run
from fledge.commands.prompts import prompt_ids
from fledge.commands.train import train
from fledge.errors import FledgeError
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import tiny_folder
from tests.unit.evaluation.pairs import tiny_t5

SIX = Sampling(6)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A tiny T5 trained on sums, its tokenizer ending a text as T5's does."""
    folder = tmp_path_factory.mktemp("t5")
    base = tiny_folder("llama", folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    for path in base.iterdir():
        path.unlink()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save_pretrained(base)
    tiny_t5().save_pretrained(base)
    rows = write_rows(folder / "rows.jsonl")
    changes = {"train__max_steps": 40, "lora__target_modules": "all-linear"}
    validation = {"path": str(rows), "format": "completion"}
    asks = {"evaluate__rouge": True, "evaluate__max_new_tokens": 6, "evaluate__max_rows": 12}
    train(load(folder, recipe_dict(base, rows, folder / "run", data__validation=validation, **changes, **asks)))
    return folder / "run"


def test_rouge_is_that_of_the_written_answers_and_training_and_evaluation_agree(run):
    summary = json.loads((run / "summary.json").read_text())
    result = evaluate(run, question=Question(exact_match=True))
    rows = [json.loads(line) for line in (run / "evaluation/predictions.jsonl").read_text().split("\n")[:-1]]
    assert len(rows) == 12 and rows[0]["prompt"] == "zero plus zero =" and rows[0]["reference"].strip() == "zero"
    assert any(row["base"] != row["tuned"] for row in rows)
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    for who, moment in (("base", "before"), ("tuned", "after")):
        mean = fmean(scorer.score(row["reference"], row[who])["rougeL"].fmeasure for row in rows)
        assert result.as_json()["rouge"][who]["rougeL"] == mean == summary[f"rouge_{moment}"]["rougeL"]
    assert result.tuned.loss < result.base.loss


def test_a_prompt_is_the_whole_source_and_its_answer_what_evaluation_wrote(run):
    opened = open_run(run)
    ids = prompt_ids(Prompt("zero plus zero ="), opened.recipe, tokenizer=opened.tokenizer)
    assert ids[-1] == 1 and ids.count(1) == 1
    evaluate(run)
    row = json.loads((run / "evaluation/predictions.jsonl").read_text().split("\n")[0])
    pieces: list[str] = []
    tuned = generate(run, "zero plus zero =", sampling=SIX, on_text=pieces.append)
    assert tuned.text == row["tuned"] == "".join(pieces)
    assert generate(run, "zero plus zero =", sampling=SIX, use_base=True).text == row["base"]


def test_an_answer_is_the_models_own_by_whole_forward_passes(run):
    opened = open_run(run)
    tuned = load_tuned(opened)
    source = torch.tensor([prompt_ids(Prompt("one plus three ="), opened.recipe, tokenizer=opened.tokenizer)])
    target = [opened.tokenizer.decoder_start_id]
    with torch.no_grad():
        for _ in range(6):
            logits = tuned.model(input_ids=source, decoder_input_ids=torch.tensor([target])).logits
            target.append(int(logits[0, -1].argmax()))
    stop = next((place for place, token in enumerate(target[1:]) if token in opened.tokenizer.stop_ids), 6)
    answer = generate(run, "one plus three =", sampling=SIX)
    assert answer.text == opened.tokenizer.decode(target[1 : 1 + stop])


def test_an_empty_prompt_is_refused(run):
    with pytest.raises(FledgeError, match="no tokens"):
        generate(run, "")


def test_there_is_no_conversation_and_the_refusal_says_what_to_do(run):
    with pytest.raises(FledgeError, match=r"encoder-decoder(.|\n)*fledge generate"):
        chat(run)
