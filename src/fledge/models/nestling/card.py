"""The model card that is shipped beside nestling's weights."""

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# nestling

A language model of BLOOM's architecture with {parameters:,} parameters, small enough to ship inside Fledge. It is
there to be fine-tuned in a minute on a plain CPU: for the quickstart, for tests, and for trying a recipe before a large
model is loaded. It knows nothing about the world and is of no other use.

- **Architecture**: `BloomForCausalLM`, {num_layers} layers, width {hidden_size}, {num_heads} heads, ALiBi positions,
  input and output embeddings shared, bfloat16.
- **Tokenizer**: byte-level BPE, {vocab_size:,} tokens, digits one by one; `<unk>`, `<s>`, `</s>`, `<pad>` are 0 to 3;
  no token is put before a text.
- **Texts**: {texts:,} short English texts ({tokens:,} tokens), every one put together by code from word lists and
  sentences written for this project: bird notes with questions and record cards, small instructions, stories, letters,
  pages, lists and sums. No text comes from anywhere else.
- **Training**: {num_steps:,} steps of {rows_per_step} texts, AdamW, peak learning rate {learning_rate}, float32,
  {num_threads} threads, seed {seed}. Last mean loss {loss:.3f}.

Made by `python -m fledge.models.nestling.make OUT`; the same machine and number of threads give the same bytes.
`made.json` holds the digests of the texts, the tokenizer and the weights; the first two are the same on every machine.
"""


def card(figures: dict[str, int | float | str]) -> str:
    """The card's text with the figures of made.json."""
    return CARD.format_map(figures)
