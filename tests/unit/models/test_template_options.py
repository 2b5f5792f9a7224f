"""Values for the chat template become the saved template's defaults; a name that it does not read is an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fledge.config.data import DataConfig
from fledge.config.model import ModelConfig
from fledge.errors import DataError
from fledge.models.chat_template import CHATML, names_read, render, with_defaults
from fledge.models.load_tokenizer import load_tokenizer
from tests.tiny_models import tiny_folder

TURNS = [{"role": "user", "content": "Hi"}]
TEMPLATE = (
    " \n{%- set greeting = greeting if greeting is defined else 'Hello' %}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ 'quick ' }}{% endif %}"
    "{% for m in messages %}{{ greeting + m.content + (suffix or '') }}{% endfor %}"
)


def written(template, **options):
    return render(template, TURNS, tokens={}, add_generation_prompt=False, options=options)


def test_the_names_that_a_template_reads_are_found():
    assert names_read(TEMPLATE) == {"enable_thinking", "suffix", "greeting"}
    assert names_read(CHATML) == set()
    assert names_read("{% generation %}{{ x }}{% endgeneration %}{% break %}") == {"x"}


@pytest.mark.parametrize("options", [{"enable_thinking": False}, {"suffix": "!"}, {"greeting": "Hej", "suffix": "?"}])
def test_a_default_is_what_the_value_given_by_the_caller_would_be(options):
    template = with_defaults(TEMPLATE, options)
    assert written(template) == written(TEMPLATE, **options) != written(TEMPLATE)
    other = {"enable_thinking": True, "suffix": "...", "greeting": ""}
    assert written(template, **other) == written(TEMPLATE, **other)


@given(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.lists(st.text() | st.integers() | st.none() | st.booleans(), max_size=3)
)  # fmt: skip
def test_any_value_comes_through_as_it_is(value):
    template = "{{ value is none }}|{{ value }}|{{ value is string }}"
    assert written(with_defaults(template, {"value": value})) == written(template, value=value)


def test_what_the_template_begins_with_stays_as_it_was():
    for start in ("", " ", "\n", "\n\n", "  {% if true %}x{% endif %}", "{%- if true %} y{% endif %}", "text "):
        template = start + "{{ suffix }}"
        assert written(with_defaults(template, {"suffix": "a"})) == written(template, suffix="a")


def test_a_name_that_the_template_does_not_read_is_refused_with_the_nearest():
    with pytest.raises(DataError) as caught:
        with_defaults(TEMPLATE, {"enable_thinkin": False})
    assert "data.chat_template_kwargs.enable_thinkin" in str(caught.value)
    assert "did you mean enable_thinking?" in str(caught.value)
    with pytest.raises(DataError, match="reads: none"):
        with_defaults(CHATML, {"loud": True})
    with pytest.raises(DataError, match="does not read 'messages'"):
        with_defaults(TEMPLATE, {"messages": []})


def test_a_saved_tokenizer_has_the_values_as_its_defaults(tmp_path):
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    data = DataConfig.model_validate(
        {
            "train": {"path": "rows.jsonl", "format": "chat"},
            "chat_template": str(tmp_path / "own.jinja"),
            "chat_template_kwargs": {"enable_thinking": False},
        }
    )
    model = ModelConfig(name_or_path=str(tiny_folder("llama", tmp_path / "base")))
    tokenizer = load_tokenizer(model, data)
    tokenizer.hf.save_pretrained(tmp_path / "saved")
    plain = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert plain.apply_chat_template(TURNS, tokenize=False) == tokenizer.render(TURNS) == "quick HelloHi"
    assert plain.apply_chat_template(TURNS, tokenize=False, enable_thinking=True) == "HelloHi"
