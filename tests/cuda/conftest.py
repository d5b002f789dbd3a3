import pytest
import torch


@pytest.fixture(autouse=True)
def settings_of_this_process():
    """What a learner on a GPU sets is set back for the tests that follow."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.matmul.allow_tf32 = False
