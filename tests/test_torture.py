"""At random moments; at chosen ones: tests/test_faults.py, run/test_interrupts.py and sampling/test_worker_pool.py."""

import pytest

from tests import torture


@pytest.mark.slow
def test_some_rounds_of_torture_end_with_the_same_bytes(capsys):
    torture.main(["--minutes", "4", "--seed", "1"])
    assert "runs compared, all equal" in capsys.readouterr().out
