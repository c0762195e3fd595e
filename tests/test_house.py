"""The rules of the house, checked over the source: names, docstrings, lengths of files, paths of machines."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

import pytest

from tests.support.paths import ROOT

PACKAGES = ("signatures", "programs", "evaluate", "optimize", "mllm3rec")
CODE = (".py", ".js", ".css")
LONGEST_FILE = 500

COMMANDS = "mllm3rec/cli/"
"""A command is called what it does, and so is the library function behind it."""
SAME_IN_EVERY_COMMAND = {"app", "main"}

MACHINE_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:home|Users|root|tmp|mnt|media|srv|work|workspace|private/var)/\w" r"|\b[A-Z]:\\{1,2}Users\\"
)

Sources = Mapping[str, str]
"""Texts by path."""


def code(*folders: str) -> dict[str, str]:
    """The code below `folders`, by path relative to the repository."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.suffix in CODE]
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


def tracked() -> dict[str, str]:
    """The text files git knows; what is not UTF-8 is no text."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)  # noqa: S607
    texts = {}
    for name in filter(None, listed.stdout.decode().split("\0")):
        try:
            texts[name] = (ROOT / name).read_text("utf-8")
        except (UnicodeDecodeError, FileNotFoundError):  # a deleted file is listed until it is committed
            continue
    return texts


def definitions(source: str) -> Iterator[tuple[str, ast.stmt]]:
    """Public names that a module defines at its top level: classes, functions, constants, aliases."""
    for statement in ast.parse(source).body:
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names = [name]
            case ast.Assign(targets=targets):
                names = [node.id for one in targets for node in ast.walk(one) if isinstance(node, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names = [name]
            case _:
                names = []
        yield from ((name, statement) for name in names if not name.startswith("_"))


def is_command(statement: ast.stmt, main: str) -> bool:
    """Whether a function is a command: decorated with `@app...`, or handed to `app.command(...)` in `main`."""
    if not isinstance(statement, ast.FunctionDef):
        return False
    decorated = any(ast.unparse(one).startswith("app.") for one in statement.decorator_list)
    return decorated or re.search(rf"\.command\([^)]*\)\([\w.]*\b{statement.name}\)", main) is not None


def defined_twice(sources: Sources) -> dict[str, list[str]]:
    """Public names that more than one module defines, and where."""
    where = defaultdict(list)
    main = sources.get(COMMANDS + "main.py", "")
    for path, source in sources.items():
        for name, statement in definitions(source) if path.endswith(".py") else ():
            of_a_command = name in SAME_IN_EVERY_COMMAND or is_command(statement, main)
            if not (path.startswith(COMMANDS) and of_a_command) and path not in where[name]:
                where[name].append(path)
    return {name: paths for name, paths in where.items() if len(paths) > 1}


def undocumented(sources: Sources) -> list[str]:
    """Modules without a docstring; an empty file needs none."""
    modules = {path: ast.parse(source) for path, source in sources.items() if path.endswith(".py")}
    return [path for path, module in modules.items() if module.body and not ast.get_docstring(module)]


def too_long(sources: Sources) -> dict[str, int]:
    """Lines of the files that have too many."""
    lines = {path: source.count("\n") for path, source in sources.items()}
    return {path: count for path, count in lines.items() if count > LONGEST_FILE}


def machine_paths(sources: Sources) -> list[str]:
    """Lines that name a folder of somebody's machine."""
    return [
        f"{path}:{number}: {line.strip()}"
        for path, source in sources.items()
        for number, line in enumerate(source.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]


def without_reference(sources: Sources, pages: Iterable[str]) -> list[str]:
    """Modules that no page of the API reference names, themselves or by a folder they are in."""
    named = {name for page in pages for name in re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)}
    parts = {path: path.removesuffix(".py").split("/") for path in sources if path.endswith(".py")}
    return [
        path
        for path, names in parts.items()
        if not names[-1].startswith("_") and not named & set(accumulate(names, "{}.{}".format))
    ]


def importing_tests(sources: Sources) -> list[str]:
    """Modules that import from `tests`."""
    return [path for path, source in sources.items() if re.search(r"^\s*(?:from|import) tests\b", source, re.MULTILINE)]


def test_a_name_means_one_thing() -> None:
    assert defined_twice(code(*PACKAGES)) == {}


def test_every_module_says_what_it_is() -> None:
    assert undocumented(code(*PACKAGES, "tests", "benchmarks")) == []


def test_no_file_is_too_long_to_read() -> None:
    assert too_long(code(*PACKAGES, "benchmarks")) == {}


def test_every_module_is_in_the_reference() -> None:
    pages = [path.read_text("utf-8") for path in (ROOT / "docs" / "api").glob("*.md")]
    assert without_reference(code(*PACKAGES), pages) == []


def test_nothing_but_tests_imports_tests() -> None:
    assert importing_tests(code(*PACKAGES, "benchmarks")) == []


def test_no_file_names_a_place_on_a_machine() -> None:
    assert machine_paths(tracked()) == []


class TestTheChecksFind:
    def test_names_of_every_kind(self) -> None:
        kinds = ["class Twice: ...", "def Twice(): ...", "async def Twice(): ...", "Twice = int", "Twice: int = 1"]
        for one in kinds:
            for other in [*kinds, "Else, Twice = 1, 2"]:
                assert defined_twice({"a.py": one, "b.py": other}) == {"Twice": ["a.py", "b.py"]}

    def test_nothing_private_local_or_imported(self) -> None:
        own = "def used(): ..."
        for other in ("_used = 1", "def f():\n    used = 1", "from a import used", "class C:\n    used = 1", own[:0]):
            assert defined_twice({"a.py": own, "b.py": other}) == {}
        assert defined_twice({"a.py": own + "\n" + own}) == {}

    def test_helpers_beside_commands(self) -> None:
        sources = {
            COMMANDS + "main.py": 'app = typer.Typer()\napp.command("run")(one.run)',
            COMMANDS + "one.py": "app = typer.Typer()\ndef run(): ...\ndef helper(): ...",
            COMMANDS + "two.py": "@app.command()\ndef show(): ...\ndef helper(): ...",
            "library.py": "def run(): ...\ndef show(): ...",
        }
        assert defined_twice(sources) == {"helper": [COMMANDS + "one.py", COMMANDS + "two.py"]}
        assert set(defined_twice({**sources, "b.py": "def run(): ...\napp = 1"})) == {"helper", "run"}

    def test_missing_docstrings(self) -> None:
        assert undocumented({"a.py": "import os", "b.py": '"""B."""\nimport os', "c.py": "", "d.js": "x"}) == ["a.py"]

    def test_modules_nobody_can_look_up(self) -> None:
        sources = {"a/b.py": "", "a/c/d.py": "", "a/c/__init__.py": "", "a/_e.py": "", "f/g.py": "", "f/h.js": ""}
        assert without_reference(sources, ["::: f.g\n", "# C\n\n::: a.c\n    options: {}"]) == ["a/b.py"]
        assert without_reference(sources, ["::: a", "see ::: f"]) == ["f/g.py"]

    def test_imports_of_tests(self) -> None:
        sources = {
            "a.py": "import os\nfrom tests.support import paths",
            "b.py": "def f():\n    import tests",
            "c.py": "tests",
        }
        assert importing_tests(sources) == ["a.py", "b.py"]

    def test_long_files(self) -> None:
        assert too_long({"a.py": "\n" * LONGEST_FILE, "b.js": "\n" * (LONGEST_FILE + 1)}) == {"b.js": LONGEST_FILE + 1}

    @pytest.mark.parametrize(
        ("top", "folder"), [("/", "home"), ("/", "Users"), ("/", "root"), ("/", "mnt"), ("C:\\", "Users")]
    )
    def test_machine_paths(self, top: str, folder: str) -> None:
        line = f"see '{top}{folder}{top[-1]}ann'"
        assert machine_paths({"a.md": "fine\n" + line}) == ["a.md:2: " + line]

    @pytest.mark.parametrize("text", ["runs/tmp/a", "https://host.example/home/x", "~/work/x", "./tmp/a", "/v1/models"])
    def test_no_other_paths(self, text: str) -> None:
        assert machine_paths({"a.md": text}) == []

    def test_the_code_they_look_at(self) -> None:
        looked_at = code(*PACKAGES)
        assert {path.split("/")[0] for path in looked_at} == set(PACKAGES)
        assert {"mllm3rec/cli/main.py", "evaluate/report/page.js"} <= set(looked_at)
