"""The folders tell a story in one direction; students cannot know about vectors."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "steerlens"
ORDER = {
    "checks": 0,
    "short": 0,
    "arguments": 1,
    "memory": 0,
    "cache": 0,
    "stats": 2,
    "draw": 0,
    "cost": 0,
    "warn": 0,
    "files": 1,
    "records": 2,
    "jobs": 4,
    "similarity": 7,
    "grid": 9,
    "replication": 11,
    "lock": 2,
    "text": 2,
    "models": 3,
    "forward": 4,
    "shared_prompts": 4.2,
    "generation": 4.4,
    "answers": 4.5,
    "token_losses": 5,
    "residuals": 5,
    "evaluation": 5,
    "vectors": 6,
    "samples": 7,
    "students": 8,
    "gradients": 8,
    "audit": 9,
    "tracking": 9,
    "inspect_eval": 9,
    "figures": 10,
    "reports": 11,
    "contract": 11,
    "cli": 12,
}
APART = ("organism", "__init__")


def stage(module: str) -> str:
    return module.split(".")[1]


def imports_of(path: Path) -> set[str]:
    """Modules of the package that run when `path` is imported or used; imports for type checkers do not count."""
    found = set()

    class Visitor(ast.NodeVisitor):
        def visit_If(self, node: ast.If) -> None:
            if ast.unparse(node.test) != "TYPE_CHECKING":
                self.generic_visit(node)

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            if node.module and node.module.startswith("steerlens."):
                found.add(node.module)

    Visitor().visit(ast.parse(path.read_text()))
    return found


MODULES = [
    path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0].split(".")[0] not in APART
]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_in_the_direction_of_the_story(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports_of(path):
        other = stage(module)
        if other == own or stage(module) == "organism":
            continue
        assert ORDER[other] < ORDER[own], f"{path.name} imports {module}"


def test_students_never_see_a_vector():
    seen = set().union(*(imports_of(path) for path in (PACKAGE / "students").glob("*.py")))
    assert not any(stage(module) in ("vectors", "gradients") for module in seen)


def run_python(code: str, **environment: str) -> str:
    settings = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=settings | environment
    )
    return ran.stdout.strip()


@pytest.mark.parametrize(
    ("own", "expected"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")],
    ids=["neither is set", "rounds are set", "a policy is set"],
)
def test_waiting_threads_are_told_to_sleep_soon_before_torch_is_there_unless_the_user_says_otherwise(own, expected):
    told = run_python(
        "import os, sys; import steerlens; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)", **own
    )
    assert told == f"{expected} False"


def test_importing_the_package_loads_neither_torch_nor_transformer_lens():
    loaded = run_python(
        "import steerlens, sys; from steerlens import TrainConfig; "
        "print([m for m in ('torch', 'transformers', 'transformer_lens', 'plotly') if m in sys.modules])"
    )
    assert loaded == "[]"


def test_help_needs_no_torch():
    loaded = run_python(
        "import contextlib, io, sys\nfrom steerlens.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main(['--help'])\n"
        "print('torch' in sys.modules)"
    )
    assert loaded == "False"


def test_every_public_name_can_be_imported():
    assert run_python("import steerlens; print(all(getattr(steerlens, name) for name in steerlens.__all__))") == "True"


def test_the_stub_exports_each_public_name_once_and_under_its_own_name():
    imports = [
        node for node in ast.parse((PACKAGE / "__init__.pyi").read_text()).body if isinstance(node, ast.ImportFrom)
    ]
    names = [name for node in imports for name in node.names]
    assert all(name.name == name.asname for name in names)
    assert len({name.name for name in names}) == len(names)
    assert run_python("import steerlens; print(*steerlens.__all__)").split() == sorted(name.name for name in names)
