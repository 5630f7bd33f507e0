"""Packages whose names load on first use."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("package", "name"), [("linnet.data", "Batch"), ("linnet.doctor", "check_model")])
def test_importing_loads_no_torch_and_using_a_name_does(package: str, name: str) -> None:
    program = (
        f"import sys, {package} as it\n"
        f"assert {name!r} in dir(it) and 'torch' not in sys.modules\n"
        f"assert it.{name} is it.{name} and 'torch' in sys.modules\n"
        f"try:\n    it.nothing\nexcept AttributeError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"module '{package}' has no attribute 'nothing'\n"
