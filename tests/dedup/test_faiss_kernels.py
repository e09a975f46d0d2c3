"""Kernels for FAISS: asked for where the processor has them, and by nobody else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dedup.faiss_kernels import kernels_for

_ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("flags", "kernels"),
    [
        ("fpu sse2 avx2 avx512f avx512dq avx512cd avx512bw avx512vl", "SkylakeX"),
        ("fpu sse2 avx2 avx512f avx512cd avx512er avx512pf", ""),  # Knights Landing
        ("fpu sse2 avx2", ""),
    ],
)
def test_kernels_are_those_of_the_first_processor(flags: str, kernels: str) -> None:
    assert kernels_for(f"processor\t: 0\nmodel name\t: flags avx512f\nflags\t\t: {flags}\nvmx flags\t: x\n\nprocessor\t: 1\n") == kernels


def test_without_a_list_of_flags_the_library_chooses() -> None:
    assert kernels_for("") == kernels_for("processor\t: 0\nFeatures\t: fp asimd\n") == ""


@pytest.mark.parametrize("chosen", [None, "Haswell"])
def test_the_environment_is_as_it_was(chosen: str | None) -> None:
    program = "import os; import dedup.benchmark_vectors; print(os.environ.get('OPENBLAS_CORETYPE'))"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"} | {"PYTHONPATH": str(_ROOT)}
    environment |= {} if chosen is None else {"OPENBLAS_CORETYPE": chosen}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, cwd=_ROOT)
    assert done.stdout == f"{chosen}\n"
