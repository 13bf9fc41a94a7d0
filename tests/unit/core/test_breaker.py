from headrace.core.breaker import Breaker, Suspect


def test_a_model_that_fails_on_its_canaries_opens_the_breaker():
    breaker = Breaker(threshold=3)
    verdicts = [breaker.failed(canaries_answered=False) for _ in range(3)]
    assert verdicts == [Suspect.MODEL] * 3
    assert breaker.open


def test_input_never_opens_it():
    breaker = Breaker(threshold=1)
    assert [breaker.failed(canaries_answered=True) for _ in range(50)] == [Suspect.INPUT] * 50
    assert not breaker.open


def test_an_answered_batch_closes_it():
    breaker = Breaker(threshold=1)
    breaker.failed(canaries_answered=False)
    breaker.succeeded()
    assert not breaker.open
