"""Lets Beam stage this package on workers (`--setup_file ./setup.py`); everything else stands in pyproject.toml."""

from setuptools import setup

setup()
