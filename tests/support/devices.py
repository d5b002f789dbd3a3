"""Tests of what must be true on the CPU and on a GPU; tests/conftest.py skips the latter where there is none."""

import pytest

DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
