import pytest
from covering import CASES, SEEDS, misses

CAREFUL = ("share", "three", "gap", "spread", "order", "blow-up", "optimum", "ridge")  # may cover more than 97 %


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_an_interval_of_90_percent_covers_a_known_truth_and_false_verdicts_stay_rare(name: str) -> None:
    """Of 300 simulated studies: 85 % is four standard errors from 90 %, 9 % on one side three from 5 %."""
    for seeds in SEEDS:
        above, below, _ = misses(name, seeds, 300)
        assert above <= 0.09
        assert below <= 0.09
        assert 0.85 <= 1 - above - below <= (1 if name.startswith(CAREFUL) or "three" in name else 0.97), seeds
