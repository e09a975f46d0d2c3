"""What is installed on a worker is what stands in the checkout, with one version of Beam everywhere."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_of_the_checkout_is_installed() -> None:
    found = find_packages(str(ROOT), exclude=["tests*", "benchmarks*", "examples*", "docs*"])
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(found)


def test_every_template_is_installed() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    packages = {package.split(".")[0] for package in PROJECT["tool"]["setuptools"]["packages"]}
    installed = {path for package, patterns in data.items() for pattern in patterns for path in (ROOT / package).glob(pattern)}
    files = {path for package in packages for path in (ROOT / package).rglob("*") if path.is_file()}
    assert installed == {path for path in files if path.suffix not in (".py", ".pyc")}


def test_the_worker_image_has_the_installed_version_of_beam_and_all_packages() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    found = re.search(r"^ARG BEAM_VERSION=(\S+)$", dockerfile, re.MULTILINE)
    assert found is not None
    assert found[1] == version("apache-beam")
    copied = set(re.findall(r"^COPY (\w+) \1$", dockerfile, re.MULTILINE))
    assert copied == {package.split(".")[0] for package in PROJECT["tool"]["setuptools"]["packages"]}
