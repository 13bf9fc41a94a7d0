from headrace.worker.stages.infer import Breaker


def test_a_model_that_fails_on_its_canaries_opens_the_breaker():
    breaker = Breaker(threshold=3)
    opened = []
    for _ in range(3):
        breaker.failed(canaries_answered=False)
        opened.append(breaker.open)
    assert opened == [False, False, True]


def test_input_never_opens_it():
    breaker = Breaker(threshold=1)
    for _ in range(50):
        breaker.failed(canaries_answered=True)
    assert not breaker.open


def test_an_answered_batch_closes_it():
    breaker = Breaker(threshold=1)
    breaker.failed(canaries_answered=False)
    breaker.succeeded()
    assert not breaker.open
