from headrace.core.reminder import Reminder


def test_what_lasts_is_said_after_a_while_and_then_at_double_the_time() -> None:
    reminder = Reminder(3.0)
    said = [second for second in range(1000) if reminder.due(float(second))]
    assert said == [3, 6, 12, 24, 48, 96, 192, 384, 768]


def test_what_was_over_before_it_was_worth_a_word_was_not_said() -> None:
    reminder = Reminder(3.0)
    assert not reminder.due(2.9)
    assert not reminder.said
    assert reminder.due(3.0)
    assert reminder.said
