"""What is new is said at once, and then ever more rarely; what lasts is said after a while."""

from headrace.process.logs import Overdue, Reminder


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


def test_a_reminder_comes_at_once_and_then_ever_more_rarely_with_all_that_was_not_said() -> None:
    reminder = Reminder(first_s=60.0, longest_s=3600.0)
    assert reminder.count(3, 10.0) == 3
    assert [reminder.count(1, at) for at in (11.0, 69.0, 70.0, 189.0, 190.0)] == [0, 0, 3, 0, 2]
    assert reminder.count(0, 10_000.0) == 0


def test_what_lasts_is_said_after_a_while_and_then_at_double_the_time() -> None:
    overdue = Overdue(3.0)
    said = [second for second in range(1000) if overdue.due(float(second))]
    assert said == [3, 6, 12, 24, 48, 96, 192, 384, 768]


def test_what_was_over_before_it_was_worth_a_word_was_not_said() -> None:
    overdue = Overdue(3.0)
    assert not overdue.due(2.9)
    assert not overdue.said
    assert overdue.due(3.0)
    assert overdue.said
