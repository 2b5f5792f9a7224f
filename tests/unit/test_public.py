"""`import fledge` is light, and every name it promises is there and documented."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest

import fledge

HEAVY = {"torch", "transformers", "peft", "pydantic", "numpy", "datasets", "ruamel"}


def test_importing_fledge_imports_nothing_heavy():
    code = f"import fledge, sys; dir(fledge); print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_promised_names_are_the_ones_with_a_home():
    assert sorted(fledge.__all__) == sorted(fledge._HOMES) == dir(fledge)
    assert len(fledge.__all__) == 31
    assert {"Recipe", "load_recipe", "train", "evaluate", "generate", "chat", "export"} <= set(fledge.__all__)
    assert {"examine", "write_recipe", "import_recipe", "recipe_schema"} <= set(fledge.__all__)
    assert {"push", "Parcel", "Address"} <= set(fledge.__all__)


def test_each_name_is_told_in_the_packages_own_words():
    for name in fledge.__all__:
        assert re.search(rf"\b{name}\b", fledge.__doc__) or name == "FledgeError", name


@pytest.mark.parametrize("name", fledge.__all__)
def test_every_name_is_there_documented_and_at_its_own_home(name):
    value = getattr(fledge, name)
    home = fledge._HOMES[name]
    assert inspect.getdoc(value)
    assert value is getattr(importlib.import_module(home), name)


def test_an_unknown_name_is_answered_with_those_that_are_there():
    with pytest.raises(AttributeError, match=r"no attribute 'trane'; there is .*train"):
        fledge.trane  # noqa: B018
