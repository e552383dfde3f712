"""The head's loss in chunks equals log-softmax over all logits: values, gradients of hidden states and of the head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ownchat.model import loss


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return (hidden @ weight.T).log_softmax(-1).gather(1, targets[:, None])[:, 0]


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("count", [1, 32, 75])  # less than a chunk, whole chunks, several of both kinds
def test_equal_to_all_logits(count: int, uniform: bool, trained_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK", 16)
    monkeypatch.setattr(loss, "WEIGHT_CHUNK", 40)
    generator = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, 12, generator=generator, dtype=torch.float64).float().requires_grad_()
    weight = torch.randn(50, 12, generator=generator).requires_grad_(trained_head)
    targets = torch.randint(0, 50, (count,), generator=generator)
    factors = torch.full((count,), -0.3) if uniform else torch.randn(count, generator=generator)
    found = []
    for score in (plain, lambda *given: loss._HeadLoss.apply(*given, uniform)):
        hidden.grad = weight.grad = None
        values = score(hidden, weight, targets)
        (values * factors).sum().backward()
        found.append((values.detach(), hidden.grad, weight.grad))
    for wanted, got in zip(*found, strict=True):
        assert (wanted is None) == (got is None)
        if wanted is not None:
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_a_broken_promise_is_noticed() -> None:
    hidden, weight = torch.randn(4, 3).requires_grad_(), torch.randn(5, 3).requires_grad_()
    values = loss._HeadLoss.apply(hidden, weight, torch.tensor([0, 1, 2, 3]), True)
    with pytest.raises(AssertionError, match="one factor"):
        (values * torch.tensor([1.0, 2.0, 1.0, 1.0])).sum().backward()
