import pytest
import torch


@pytest.fixture(autouse=True)
def one_torch_thread():
    """As in main.py: the tests of equal bytes compare with workers, which use one thread each."""
    torch.set_num_threads(1)
