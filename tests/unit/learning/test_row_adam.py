import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.learning.fit.convolution import RowAdam

ROWS, WIDTH = 6, 3


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, ROWS - 1), max_size=5), min_size=1, max_size=6), st.integers(0, 100))
def test_it_does_what_torchs_sparse_adam_does(steps, seed):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(ROWS, WIDTH, generator=generator)
    mine, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = RowAdam([mine], lr=0.1), torch.optim.SparseAdam([theirs], lr=0.1)
    for touched in steps:
        # A row may be touched twice in one step: then its gradient is the sum.
        slopes = torch.randn(len(touched), WIDTH, generator=generator)
        places = torch.tensor([touched], dtype=torch.int64).view(1, -1)
        for table, optimizer in zip((mine, theirs), optimizers, strict=True):
            table.grad = torch.sparse_coo_tensor(places, slopes, (ROWS, WIDTH), check_invariants=True)
            optimizer.step()

    torch.testing.assert_close(mine, theirs)


def test_its_state_can_be_kept_and_gone_on_with():
    def train(table: torch.nn.Parameter, optimizer: RowAdam, steps: int) -> None:
        for _ in range(steps):
            slopes = torch.ones(1, WIDTH)
            table.grad = torch.sparse_coo_tensor([[2]], slopes, (ROWS, WIDTH), check_invariants=True)
            optimizer.step()

    whole, halves = (torch.nn.Parameter(torch.zeros(ROWS, WIDTH)) for _ in range(2))
    train(whole, RowAdam([whole], lr=0.1), 4)
    before = RowAdam([halves], lr=0.1)
    train(halves, before, 2)
    after = RowAdam([halves], lr=0.1)
    after.load_state_dict(before.state_dict())
    train(halves, after, 2)

    assert torch.equal(whole, halves)
