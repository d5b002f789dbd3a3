import numpy as np
import pytest

from rl import streams


def test_key_packs_the_fields_into_128_bits():
    # Widths 32, 32, 8, 24, 24, 8: the lowest bits of the fields stand at 96, 64, 56, 32, 8 and 0.
    expected = (1 << 96) + (2 << 64) + (3 << 56) + (4 << 32) + (5 << 8) + 6
    assert streams.key(1, 2, 3, 4, 5, 6) == expected


def test_fields_at_their_limits_stay_apart():
    limits = (2**32 - 1, 2**32 - 1, 2**8 - 1, 2**24 - 1, 2**24 - 1, 2**8 - 1)
    assert streams.key(*limits) == 2**128 - 1
    keys = {streams.key(*(limit if i == j else 0 for j, limit in enumerate(limits))) for i in range(6)}
    assert len(keys) == 6
    assert limits[0] == streams.MAX_SEED


@pytest.mark.parametrize("field, width", list(enumerate((32, 32, 8, 24, 24, 8))))
@pytest.mark.parametrize("wrong", ["negative", "too large"])
def test_a_field_out_of_range_is_refused(field, width, wrong):
    values = [0] * 6
    values[field] = -1 if wrong == "negative" else 2**width
    name = ("seed", "iteration", "phase", "task", "episode", "purpose")[field]
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 2\*\*{width}\)"):
        streams.key(*values)


def test_a_stream_is_its_name():
    name = streams.key(7, 1, 2, 3, 4, streams.ACTIONS)
    first, again = streams.generator(name), streams.generator(name)
    np.testing.assert_array_equal(first.random(5), again.random(5))
    other = streams.generator(streams.key(7, 1, 2, 3, 4, streams.ENVIRONMENT))
    assert not np.isin(other.random(100), streams.generator(name).random(100)).any()


def test_phases_of_training_and_evaluation_never_meet():
    # Training uses phases 0 and 1, an evaluation of U updates 128 … 128 + U, which must fit into 8 bits.
    assert streams.TRAIN + 1 < streams.EVALUATE
    assert streams.EVALUATE + streams.MAX_UPDATES == 2**8 - 1
