"""What is waited for is said at once, and then ever more rarely."""

from headrace.core.reminders import Reminder


def said(what, until_s: float, **limits: float) -> list[float]:
    """The seconds at which ``what(second)`` is said, asked once a second."""
    reminder = Reminder(**limits)
    return [float(second) for second in range(int(until_s)) if reminder.due(what(second), float(second))]


def test_the_same_is_said_again_after_twice_as_long_each_time_and_up_to_a_longest():
    assert said(lambda _: "it", 500, first_s=10, longest_s=100) == [0, 10, 30, 70, 150, 250, 350, 450]


def test_what_is_new_is_said_at_once_and_begins_anew():
    assert said(lambda second: "one" if second < 15 else "two", 40, first_s=10, longest_s=100) == [0, 10, 15, 25]


def test_whether_it_was_said_before_is_known_and_nothing_waited_for_forgets_it():
    reminder = Reminder()
    assert reminder.due("it", 0.0)
    assert not reminder.again
    assert reminder.due("it", 10.0)
    assert reminder.again
    reminder.done()
    assert reminder.due("it", 11.0)
    assert not reminder.again
