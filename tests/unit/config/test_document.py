"""YAML text becomes the tree that YAML 1.2 says, and every fault of it a problem with a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fledge.config.document import MAX_BYTES, read_document, read_value

SCALARS = {
    "1e-4": 1e-4,
    "3.0e-4": 3.0e-4,
    "5.e-1": 0.5,
    ".5": 0.5,
    "-0.1": -0.1,
    "1E3": 1000.0,
    "7": 7,
    "-7": -7,
    "0": 0,
    "0x1f": 31,
    "0o17": 15,
    "1_000": "1_000",
    "true": True,
    "False": False,
    "yes": "yes",
    "off": "off",
    "null": None,
    "~": None,
    "": None,
    "none": "none",
    "2024-01-01": "2024-01-01",
    "1:30": "1:30",
    "'1'": "1",
    '"true"': "true",
    "!!str 1": "1",
    "1.2.3": "1.2.3",
}


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_a_scalar_is_what_yaml_1_2_says(text: str, value: object) -> None:
    document = read_document(f"key: {text}\n".encode(), "r.yaml")
    assert not document.problems
    assert document.tree == {"key": value}
    assert type(document.tree["key"]) is type(value)


FAULTS = {
    "a:\n\tb: 1": ("r.yaml:2", "a tab"),
    "a: [1": ("r.yaml:1", "not valid YAML"),
    "a: b: c": ("r.yaml:1", "second ': '"),
    "a: 1\n---\nb: 2": ("r.yaml:2", "a second document"),
    "a: &x [*x]": ("r.yaml:1", "aliases that unfold without end"),
    "[" * 5000: ("r.yaml:1", "nested too deeply"),
    "a: *nope": ("r.yaml:1", "undefined alias"),
    "a: 1\na: 2": ("r.yaml:2", "a is given twice"),
    "1: x": ("r.yaml:1", "a key must be text"),
    "null: x": ("r.yaml:1", "a key must be text"),
    "true: x": ("r.yaml:1", "a key must be text"),
    "? [a, b]\n: x": ("r.yaml:1", "a key must be text"),
    "a: 017": ("r.yaml:1", "octal"),
    "a: !!python/object:os.system x": ("r.yaml:1", "has no meaning"),
    "a: !thing 3": ("r.yaml:1", "has no meaning"),
    "a: !!binary aGk=": ("r.yaml:1", "has no meaning"),
    "x: 1\na: \x01": ("r.yaml:2", "a character that YAML does not allow"),
    "<<: 3": ("r.yaml:1", "<< needs a mapping"),
    "a: 'x": ("r.yaml:1", "not valid YAML"),
    "a:\n  b: 1\n   c: 2": ("r.yaml:3", "a wrong indent"),
    "a:\n  b:1\n  c: 2": ("r.yaml:3", "no space after the colon"),
    "a: {b:1}": ("r.yaml:1", "no space after the colon of b:1"),
    "a:\n\u00a0\u00a0b: 1": ("r.yaml:2", "a space of another kind"),
    "// x\na: {b: 1}": ("r.yaml:2", "a line that begins with //"),
    "[a]\nb = 1": ("r.yaml:2", "not valid YAML"),
    '{"a": 1}\n{"a": 2}': ("r.yaml:2", "not valid YAML"),
}


@pytest.mark.parametrize(("text", "expected"), FAULTS.items())
def test_a_fault_is_told_with_its_line(text: str, expected: tuple[str, str]) -> None:
    problems = read_document(text.encode(), "r.yaml").problems
    assert [problem.where for problem in problems] == [expected[0]]
    assert expected[1] in problems[0].what
    assert problems[0].cure or "unfold" in problems[0].what or "nested" in problems[0].what


def test_bytes_that_are_no_text_are_told_with_their_line() -> None:
    (problem,) = read_document(b"a: 1\nb: \xff\xfe", "r.yaml").problems
    assert (problem.what, problem.where) == ("not UTF-8 text", "r.yaml:2")


def test_a_huge_file_is_refused_unread() -> None:
    (problem,) = read_document(b"#" * (MAX_BYTES + 1), "r.yaml").problems
    assert "larger than 64 KB" in problem.what


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert read_document("\ufeffa: 1".encode(), "r.yaml").tree == {"a": 1}


def test_aliases_that_multiply_are_refused() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    (problem,) = read_document(laughs.encode(), "r.yaml").problems
    assert "unfold without end" in problem.what


def test_merge_keys_put_a_mapping_in_and_explicit_keys_win_in_any_order() -> None:
    text = "one: &one {a: 1, b: 1}\ntwo: {b: 2, <<: *one, c: 3}\n"
    document = read_document(text.encode(), "r.yaml")
    assert document.tree["two"] == {"a": 1, "b": 2, "c": 3}
    assert document.where(("two", "b")) == "r.yaml:2"
    assert document.where(("two", "a")) == "r.yaml:1"


def test_marks_point_at_the_line_of_each_key() -> None:
    document = read_document(b"a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", "r.yaml")
    assert document.where(("a", "c", 1, "d")) == "r.yaml:5"
    assert document.where(("a", "b")) == "r.yaml:2"
    assert document.where(("a", "unknown")) == "r.yaml:1"


@given(st.text(max_size=60))
def test_no_text_at_all_makes_the_reader_fall(text: str) -> None:
    read_value(text, ("a",), where="command line")
    read_document(text.encode("utf-8", "surrogatepass"), "r.yaml")


@given(st.binary(max_size=60))
def test_no_bytes_at_all_make_the_reader_fall(content: bytes) -> None:
    read_document(content, "r.yaml")
