"""What newer versions write is read by older ones."""

import json

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE

from fledge.models.spelling import with_older_merges, with_older_names

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def test_rotary_settings_get_the_names_of_version_4():
    assert with_older_names({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}) == {"rope_theta": 5e5}
    scaled = with_older_names({"rope_parameters": {"rope_theta": 5e5, **LLAMA3}})
    assert scaled == {"rope_theta": 5e5, "rope_scaling": LLAMA3}
    share = {"rope_theta": 1e4, "partial_rotary_factor": 0.4}
    assert with_older_names({"rope_parameters": share}) == share


def test_what_the_file_says_already_is_left_as_it_is():
    both = {"rope_theta": 5e5, "rope_scaling": None, "rope_parameters": {"rope_theta": 5e5, **LLAMA3}}
    assert with_older_names(both) == {"rope_scaling": LLAMA3}
    assert with_older_names({"rope_theta": 1e4}) == {}
    assert with_older_names({"rope_parameters": None}) == {}


def test_gpt_neox_has_older_names_of_its_own():
    rope = {"rope_theta": 2e4, "partial_rotary_factor": 0.25}
    found = with_older_names({"model_type": "gpt_neox", "rope_parameters": rope})
    assert found == {"rotary_emb_base": 2e4, "rotary_pct": 0.25}


def test_layers_with_settings_of_their_own_are_told_apart():
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    found = {"rope_theta": 1e6, "rope_local_base_freq": 1e4}
    assert with_older_names({"rope_parameters": rope}) == found
    scaled = found | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    assert with_older_names({"model_type": "gemma3_text", "rope_parameters": rope}) == scaled


def test_a_kind_of_scaling_that_version_4_does_not_know_gets_no_name_there():
    assert with_older_names({"rope_parameters": {"rope_type": "axial", "rope_theta": 1e4}}) == {"rope_theta": 1e4}


def test_merges_become_texts_that_are_read_as_the_pairs_were():
    model = BPE(vocab={"a": 0, "b": 1, "ab": 2, "c": 3, "abc": 4}, merges=[("a", "b"), ("ab", "c")])
    rules = json.loads(Tokenizer(model).to_str())
    assert rules["model"]["merges"] == [["a", "b"], ["ab", "c"]]
    older = with_older_merges(rules)
    assert older["model"]["merges"] == ["a b", "ab c"]
    assert json.loads(Tokenizer.from_str(json.dumps(older)).to_str()) == rules


@given(st.lists(st.tuples(st.text(min_size=1, max_size=3), st.text(min_size=1, max_size=3)), max_size=6))
def test_merges_that_one_text_could_not_tell_stay_pairs(pairs):
    rules = {"model": {"type": "BPE", "merges": [list(pair) for pair in pairs]}}
    merges = with_older_merges(rules)["model"]["merges"]
    back = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    assert back == [list(pair) for pair in pairs]


def test_rules_without_merges_are_left_alone():
    for rules in ({}, {"model": {"type": "Unigram"}}, {"model": {"type": "BPE", "merges": ["a b"]}}):
        assert with_older_merges(rules) == rules
