import pytest

from headrace.kafka.static_membership import Takeovers


@pytest.mark.parametrize(
    ("moments", "alternate"),
    [
        ((), False),
        ((10.0,), False),  # a process that came back elsewhere
        ((10.0, 10.4), True),
        ((10.0, 70.0), True),
        ((10.0, 70.1), False),  # two restarts, far apart
        ((10.0, 80.0, 150.0), False),
        ((10.0, 80.0, 81.0), True),
    ],
)
def test_an_id_that_is_taken_over_twice_in_a_minute_is_given_up(moments, alternate):
    takeovers = Takeovers()
    for moment in moments:
        takeovers = takeovers.another(moment)
    assert takeovers.alternate is alternate
