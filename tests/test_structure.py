"""How the package is put together: imports point one way, torch comes late, nothing unsafe, everything explained."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "crnn"
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]  # that one is all names
FORBIDDEN_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load"}
EVASIVE_NAMES = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py", "base.py"}


def levels() -> dict[str, int]:
    """Room -> level, from the list under "Rooms" in docs/architecture.md."""
    rooms = (ROOT / "docs" / "architecture.md").read_text().split("## Rooms")[1].split("```")[1]
    return {room: level for level, line in enumerate(rooms.strip().splitlines()) for room in line.split(", ")}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, late imports too; `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write crnn.room.file in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(PACKAGE)) for path in paths]


def test_the_rooms_are_those_of_the_architecture_page():
    unknown = {room_of(path) for path in FILES} - levels().keys()
    assert not unknown, f"{unknown} stand in no line under Rooms in docs/architecture.md"


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_imports_point_one_way(path):
    level, room = levels(), room_of(path)
    for module in imported_modules(path):
        package, _, rest = module.partition(".")
        used = rest.partition(".")[0]
        # what is no file here is a name of the package itself, such as crnn.__version__
        is_room = used and any((PACKAGE / name).exists() for name in (used, f"{used}.py"))
        if package != "crnn" or used == room or not is_room:
            continue
        assert {room, used} <= level.keys(), f"{room} or {used} stands in no line under Rooms in docs/architecture.md"
        ground = level[room] == 0 and used == "errors"
        assert level[used] < level[room] or ground, f"{path.relative_to(ROOT)}: {room} may not import crnn.{used}"


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_every_public_function_and_class_is_explained(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path.relative_to(ROOT)} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert is_overload(node) or ast.get_docstring(node), (
                f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has no docstring"
            )


def is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return any(ast.unparse(decorator) in ("overload", "typing.overload") for decorator in node.decorator_list)


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_nothing_is_unpickled_or_evaluated(path):
    for module in imported_modules(path):
        assert module.partition(".")[0] not in FORBIDDEN_MODULES, f"{path.relative_to(ROOT)} imports {module}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            assert ast.unparse(node.func) not in FORBIDDEN_CALLS, f"{where}: {ast.unparse(node.func)}"
            unsafe = [k for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"]
            assert not unsafe, f"{where}: allow_pickle"


def test_files_are_named_after_ideas():
    assert not [path for path in FILES if path.name in EVASIVE_NAMES]


@pytest.mark.skipif(not (PACKAGE / "__init__.py").exists(), reason="no src/crnn/__init__.py yet")
def test_importing_the_package_does_not_import_torch():
    assert heavy_modules("import crnn") == []


@pytest.mark.skipif(not (PACKAGE / "cli" / "main.py").exists(), reason="no src/crnn/cli/main.py yet")
def test_help_does_not_import_torch():
    code = """
import contextlib, io
from crnn.cli.main import main
sys.argv = ["crnn", "--help"]
try:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main()
except SystemExit as end:
    assert not end.code, end.code
assert "predict" in printed.getvalue(), printed.getvalue()
"""
    assert heavy_modules(code) == []


def heavy_modules(code: str) -> list[str]:
    """Which of the slow libraries a fresh Python holds after running `code`."""
    path = f"import sys\nsys.path.insert(0, {str(PACKAGE.parent)!r})\n"
    report = "\nprint(*[m for m in ('torch', 'sklearn', 'matplotlib', 'polars', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", path + code + report], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
