"""Files, functions and signatures stay small enough to be read at once."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "fledge"
MODULES = sorted(SOURCE.rglob("*.py"))
FILE_LINES, FUNCTION_LINES, PARAMETERS, POSITIONAL = 400, 60, 7, 2

# A signature that a library imposes, by file or by name: typer reads its commands' parameters, transformers calls
# attention functions and those of a quantizer, torch calls a module's methods.
IMPOSED_FILES = ("cli/",)
IMPOSED_NAMES = frozenset(
    {"train_step", "forward", "backward", "bloom_attention", "falcon_attention", "attend_documents", "document_mask"}
    | {"param_needs_quantization", "convert"}
    | {f"_process_model_{when}_weight_loading" for when in ("before", "after")}
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[tuple[str, Function, bool]]:
    """Every function of a module with its place, and whether it is a method."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    methods = {id(item) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for item in node.body}
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node, id(node) in methods


def is_imposed(path: Path, function: Function) -> bool:
    if any("triton.jit" in ast.unparse(decorator) for decorator in function.decorator_list):
        return True  # what Triton compiles takes pointers, strides and sizes one by one
    return str(path.relative_to(SOURCE)).startswith(IMPOSED_FILES) or function.name in IMPOSED_NAMES


def own_parameters(function: Function, *, is_method: bool) -> list[ast.arg]:
    """Positional parameters, `self` or `cls` left out."""
    is_static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    positional = [*function.args.posonlyargs, *function.args.args]
    return positional[1:] if is_method and not is_static else positional


def report(found: list[str]) -> None:
    assert len(MODULES) > 50
    assert not found, "\n".join(["", *found])


def test_a_file_has_at_most_400_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    report([f"{path.relative_to(ROOT)}: {n} lines" for path, n in lengths.items() if n > FILE_LINES])


def test_a_function_has_at_most_60_lines() -> None:
    report(
        [
            f"{where}: {length} lines"
            for path in MODULES
            for where, function, _ in functions(path)
            if (length := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES
        ]
    )


def test_a_function_takes_at_most_seven_parameters_keyword_only_after_two() -> None:
    found = []
    for path in MODULES:
        for where, function, is_method in functions(path):
            positional = own_parameters(function, is_method=is_method)
            if is_imposed(path, function):
                continue
            if len(positional) + len(function.args.kwonlyargs) > PARAMETERS:
                found.append(f"{where}: more than {PARAMETERS} parameters")
            if len(positional) > POSITIONAL and not function.name.startswith("_"):
                found.append(f"{where}: keyword-only after the first two")
    report(found)


def test_no_boolean_is_positional_and_nothing_takes_kwargs() -> None:
    found = []
    for path in MODULES:
        for where, function, is_method in functions(path):
            if is_imposed(path, function):
                continue
            if function.args.kwarg is not None:
                found.append(f"{where}: **{function.args.kwarg.arg}")
            for parameter in own_parameters(function, is_method=is_method):
                if isinstance(parameter.annotation, ast.Name) and parameter.annotation.id == "bool":
                    found.append(f"{where}: {parameter.arg} is a boolean and positional")
    report(found)


def test_classes_inherit_only_from_protocols_exceptions_modules_and_sections() -> None:
    welcome = (
        "Protocol",
        "Error",
        "Exception",
        "Module",
        "Section",
        "BaseModel",
        "Event",
        "Function",
        "NamedTuple",
        "Enum",
        # what ctypes lays out as C does
        "Structure",
        # what peft and transformers find by its type: a linear layer, a way of loading one
        "nn.Linear",
        "HfQuantizer",
        "ConversionOps",
        "TorchFunctionMode",
        "QuantizationConfigMixin",
    )
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} inherits from {ast.unparse(base)}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if not ast.unparse(base).split("[")[0].endswith(welcome)
    ]
    report(found)


def test_every_module_begins_with_one_sentence() -> None:
    found = []
    for path in MODULES:
        words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = words.split("\n")[0]
        if not first.endswith("."):
            found.append(f"{path.relative_to(ROOT)}: {first!r} is no sentence")
    report(found)


def test_every_public_function_has_a_docstring() -> None:
    report(
        [
            f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has no docstring"
            for path in MODULES
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_")
            if not ast.get_docstring(node)
        ]
    )
