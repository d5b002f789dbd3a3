import numpy as np
import pytest

from rl.errors import UserError
from rl.evaluation import events
from rl.run.logger import Logger
from tests.support.event_files import record


@pytest.fixture
def written(tmp_path):
    """An event file of five scalars after its version, and where each of its records begins."""
    logger = Logger(tmp_path)
    for iteration in range(5):
        logger.scalar("a curve" * (iteration + 1), iteration / 2, iteration)
    logger.close()
    (path,) = logger.files
    starts = np.cumsum([0, *(len(record(event)) for event in events.records(path))])
    assert starts[-1] == path.stat().st_size
    return path, starts


def test_checksums_are_castagnolis():
    # RFC 3720, B.4: 32 zeros, 32 ones, 0 to 31; then masked.
    rows = np.stack([np.zeros(32, np.uint8), np.full(32, 255, np.uint8), np.arange(32, dtype=np.uint8)])
    masked = [((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32 for crc in (0x8A9136AA, 0x62A8AB43, 0x46DD794E)]
    assert events.masked_crc(rows).tolist() == masked


def test_what_was_written_is_read(written):
    path, _ = written
    assert list(events.scalars(path)) == [("a curve" * (i + 1), i, i / 2) for i in range(5)]


def test_every_flipped_bit_is_noticed(written):
    path, starts = written
    content = path.read_bytes()
    for place in range(len(content)):
        number = np.searchsorted(starts, place, side="right")
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=f"record {number} does not agree with its checksum"):
            events.records(path)


def test_a_record_that_is_cut_short_is_left_out(written):
    path, starts = written
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        assert len(events.records(path)) == np.searchsorted(starts, end, side="right") - 1


def test_a_run_that_goes_on_warns_of_damage(written, capsys):
    path, starts = written
    size = path.stat().st_size
    Logger(path.parent, {path.name: size}).close()
    assert capsys.readouterr().err == ""
    content = bytearray(path.read_bytes())
    content[starts[2] + 14] ^= 1
    path.write_bytes(content)
    Logger(path.parent, {path.name: size}).close()
    assert f"warning: {path}: expected TensorBoard events: record 3 does not agree" in capsys.readouterr().err
    assert path.read_bytes() == content
