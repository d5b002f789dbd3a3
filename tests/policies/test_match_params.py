import pytest

from rl.config import parse_options
from rl.errors import UserError
from rl.policies import Architecture, match_params
from rl.run.setup import Setup

PLAIN = Architecture(3, 2, True, 1, (4, 4), nm_size=2)


def literal_count(inputs, width, outputs, modulators=0):
    """Weights and biases of two hidden layers and the output layer, modulators too."""
    total, size = 0, inputs
    for _ in range(2):
        total += width * (size + 1)
        if modulators:
            total += modulators * (size + 1) + width * (modulators + 1)
        size = width
    return total + outputs * (size + 1)


def test_counts_by_hand():
    # Inputs 3 + 1. Plain: 4·5 + 4·5 + 2·5 = 50. Modulated: 50 + 2·(2·5 + 4·3) = 94.
    assert match_params.count(PLAIN) == literal_count(4, 4, 2) == 50
    assert match_params.count(match_params.modulated(PLAIN)) == literal_count(4, 4, 2, 2) == 94


def test_the_closest_width():
    # Width h: 5h + h(h + 1) + 2(h + 1) = h² + 8h + 2; 86 for 6, 107 for 7; 94 is closer to 86.
    found = match_params.widened(PLAIN)
    assert found.hidden_sizes == (6, 6) and match_params.count(found) == 86
    assert match_params.report(found, 4) == (
        "--match-params: 6 units instead of 4: 86 parameters; the neuromodulated policy has 94"
    )


@pytest.mark.parametrize("modulators", [1, 3, 10, 200])
def test_no_other_width_is_closer(modulators):
    plain = PLAIN._replace(nm_size=modulators)
    wanted = match_params.count(match_params.modulated(plain))
    distances = {width: abs(literal_count(4, width, 2) - wanted) for width in range(4, 200)}
    assert match_params.widened(plain).hidden_sizes[0] == min(distances, key=distances.get)


def test_the_papers_control():
    """CT-graph of depth 4: 65 observations, 20 context parameters, 3 actions; the paper has 647 units."""
    plain = Architecture(65, 3, True, 20, (600, 600), nm_size=32)
    assert match_params.widened(plain).hidden_sizes == (646, 646)


def test_the_option():
    config = parse_options(["--match-params", "--hidden-size", "4", "--nm-size", "2"])
    # 2D navigation: 2 + 2 inputs, 2 outputs and as many log-stds: as above, and 2 more on either side.
    assert Setup(config).policy.architecture.hidden_sizes == (6, 6)
    with pytest.raises(UserError, match="expected a command without --neuromodulation"):
        parse_options(["--match-params", "--neuromodulation"])
