"""The arrows between the packages, read from the source: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARROWS = {
    "pagepairs": {"pagepairs"},
    "encoders": {"encoders", "pagepairs"},
    "filters": {"filters", "pagepairs"},
    "dedup": {"dedup", "pagepairs"},
    "train": {"train", "pagepairs", "encoders"},
    "pipeline": {"pipeline", "pagepairs", "encoders", "filters", "dedup"},
}


def imported(tree: ast.AST) -> set[str]:
    """Every module that a source names in an import, at any depth of the code."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide the arrows"
            names.add(node.module or "")
    return names


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ARROWS)
def test_a_package_imports_only_what_its_arrows_allow(package: str) -> None:
    assert sources(package)
    wrong = {}
    for path in sources(package):
        roots = {name.split(".")[0] for name in imported(ast.parse(path.read_text("utf-8")))}
        if bad := (roots & ARROWS.keys()) - ARROWS[package]:
            wrong[str(path.relative_to(ROOT))] = bad
    assert wrong == {}


def test_only_the_pipeline_imports_beam() -> None:
    modules = [
        (path.relative_to(ROOT).parts[0], imported(ast.parse(path.read_text("utf-8")))) for package in ARROWS for path in sources(package)
    ]
    assert {package for package, names in modules if any(name.split(".")[0] == "apache_beam" for name in names)} == {"pipeline"}


def test_the_command_line_names_modules_and_imports_none_of_them() -> None:
    tree = ast.parse((ROOT / "pagepairs" / "cli.py").read_text("utf-8"))
    assert {name.split(".")[0] for name in imported(tree)} & (ARROWS.keys() - {"pagepairs"}) == set()
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert "pipeline.commands" in literals


def test_a_broken_arrow_is_seen() -> None:
    tree = ast.parse("def lazily():\n    from pipeline.jobs import Journal\n    import apache_beam.io as io\n")
    assert imported(tree) == {"pipeline.jobs", "apache_beam.io"}
