"""The certificate's page: it stands alone, shows every figure beside its limit, and lets no text of others through."""

import copy
import re
from html.parser import HTMLParser

import pytest

from fledge.exporting.page import page_of

TOLERANCE = {"relative": 0.1, "mean_kl": 0.01, "tie": 0.04}
FIGURES = {"max_abs": 0.05, "relative": 0.05, "mean_kl": 2e-5, "positions": 408, "mean_abs": 0.01, "max_kl": 3e-4}
CERTIFICATE = {
    "version": 1,
    "passed": True,
    "kind": "hf",
    "dtype": "bfloat16",
    "base": {
        "name": "some/base",
        "revision": "main",
        "quantization": "none",
        "sha256": {"model.safetensors": "a" * 64},
    },
    "trained_dtype": "bfloat16",
    "adapter": {"which": "last", "sha256": "b" * 64},
    "versions": {"fledge": "1", "torch": "2"},
    "probe": {"rows": 8, "prompts": 2, "from": "validation rows"},
    "limits": {"logits": TOLERANCE},
    "checks": {
        "merge": FIGURES | {"mean_kl": 0.0, "tolerance": TOLERANCE},
        "logits": FIGURES | {"tolerance": TOLERANCE},
        "text": {
            "prompts": 2,
            "same": 1,
            "ties": 1,
            "parted_at": [None, 4],
            "answers": [
                {"prompt": "<script>alert(1)</script>", "trained": "yes\x1b[2J", "exported": "yes\x1b[2J"},
                {"prompt": "{{ 7 * 7 }}", "trained": "<img src=x onerror=alert(1)>", "exported": "no"},
            ],
        },
        "effect": FIGURES | {"mean_kl": 0.4},
        "template": {
            "sha256_trained": "c" * 64,
            "sha256_exported": "c" * 64,
            "bytes_equal": True,
            "rendered_equal": True,
            "rendered": "<|im_start|>user\nhi<|im_end|>",
            "is_dated": False,
        },
        "bos": {"token_id": 0, "rows": 2, "expected": [1, 1], "found": [1, 1]},
        "stops": {"eos_token_id": [1, 321], "tokens": ["</s>", "<|im_end|>"]},
        "tokenizer": {"identity": "d", "has_chat_template": True, "texts": 12, "same": 12},
        "files": {"tensors": 21, "differing": 0},
    },
    "sha256": {"config.json": "e" * 64},
}


class Parts(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action") or name.startswith("on")]

    def handle_data(self, data):
        self.text += data


def parts_of(certificate) -> Parts:
    parts = Parts()
    parts.feed(page_of(certificate))
    return parts


def changed(**checks):
    certificate = copy.deepcopy(CERTIFICATE)
    certificate["checks"] |= checks
    return certificate


def test_the_page_needs_nothing_from_outside_and_runs_nothing():
    parts = parts_of(CERTIFICATE)
    assert not {"script", "img", "link", "iframe", "object"} & {*parts.tags} and parts.links == []
    assert "default-src 'none'" in page_of(CERTIFICATE) and "url(" not in page_of(CERTIFICATE)


def test_the_text_of_others_is_shown_as_it_is_and_control_characters_are_not():
    parts = parts_of(CERTIFICATE)
    assert "<script>alert(1)</script>" in parts.text and "{{ 7 * 7 }}" in parts.text
    assert "<img src=x onerror=alert(1)>" in parts.text and "yes\ufffd[2J" in parts.text and "\x1b" not in parts.text


def test_the_verdict_comes_first_and_every_figure_stands_beside_its_limit():
    text = " ".join(parts_of(CERTIFICATE).text.split())
    text = text[text.index("What was exported is what was trained") :]
    assert text.index("some/base") < text.index("mean KL")
    assert "2.00 × 10⁻⁵ of 0.01 allowed" in text and "0.05 of 0.1 allowed" in text
    assert "20,000 times less than training changed the base" in text
    assert "1 of 2 answers are the same" in text and "a tie at token 5" in text
    assert "</s> (1), <|im_end|> (321), as in the training" in text
    assert CERTIFICATE["sha256"]["config.json"] in text and "b" * 64 in text
    assert [float(width) for width in re.findall(r'<i style="width:([\d.]+)%', page_of(CERTIFICATE))] == [1, 50, 0, 50]


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ({"logits": FIGURES | {"mean_kl": 0.0, "tolerance": TOLERANCE}}, "no measurable difference"),
        ({"effect": FIGURES | {"mean_kl": 1e-6}}, "moves this model further than its training did"),
        ({"bos": {"token_id": None, "rows": 2, "expected": [0, 0], "found": [0, 0]}}, "no such token"),
        ({"on_full_precision": FIGURES | {"mean_kl": 0.3}}, "which is 0.3 (mean KL) from the trained model"),
        (
            {"choice": {"onto": "full", "asked": "auto", "full": FIGURES, "dequantized": FIGURES | {"mean_kl": 0.3}}},
            "onto the base in full precision, which is closer to the trained model",
        ),
        (
            {
                "tokenizer": {"words": 320, "merges": 61, "in_transformers": {"texts": 12, "same": 11}},
                "files": {"tensors": 21, "differing": 0, "held_otherwise": 5},
            },
            "all 320 words are in the file, and transformers reads 11 of 12 texts alike",
        ),
        (
            {"template": dict.fromkeys(("sha256_trained", "sha256_exported", "rendered"), None) | {"is_dated": False}},
            "there is none, as in the training",
        ),
    ],
)
def test_what_is_special_about_an_export_is_said(checks, words):
    assert words in " ".join(parts_of(changed(**checks)).text.split())
