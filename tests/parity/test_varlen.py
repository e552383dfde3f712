"""The kernel that a GPU gets, as far as it can be tried without one: its definition, its call, and when it is taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.attention.varlen
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ownchat.model import varlen
from ownchat.model.attention import make_layout, packed_attention

LENGTHS = [5, 1, 33, 140]
SCALE = 0.3


def random_inputs(tokens: int, heads: int, key_heads: int, width: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(tokens, count, width, generator=generator) for count in (heads, key_heads, key_heads)]


@pytest.mark.parametrize("window", [None, 7, 140, 1000])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_plain_and_tiled_attention_are_the_same(window: int | None, key_heads: int) -> None:
    """What the kernel is held against is what a CPU computes: the output, and the gradient of each input."""
    layout = make_layout(LENGTHS)
    inputs = random_inputs(sum(LENGTHS), 4, key_heads)
    found = []
    for tiled in (True, False):
        given = [x.clone().requires_grad_() for x in inputs]
        if tiled:
            q, k, v = (x.transpose(0, 1)[None] for x in given)
            out, _ = packed_attention(
                torch.nn.Module(), q, k, v, None, scaling=SCALE, layout=layout, sliding_window=window
            )
            out = out[0]
        else:
            out = varlen.attend_plainly(*given, layout.cumulative, layout.longest, SCALE, window)
        weight = torch.arange(out.numel()).view(out.shape).float().sin()
        found.append([out, *torch.autograd.grad((out * weight).sum(), given)])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


def test_cumulative_lengths() -> None:
    layout = make_layout([3, 1, 4], prefix=2)
    assert layout.cumulative.dtype == torch.int32, "all that the kernel takes"
    assert layout.cumulative.tolist() == [0, 3, 4, 8] and layout.longest == 4


def spoiled(change: str) -> varlen.Kernel:
    def kernel(q: Tensor, k: Tensor, v: Tensor, c: Tensor, longest: int, scale: float, window: int | None) -> Tensor:
        match change:
            case "scale":
                scale *= 1.2
            case "window":
                window = None if window is None else window + 1
            case "borders":
                c = c[[0, -1]]
            case "gradient":
                return varlen.attend_plainly(q, k, v.detach() * 0.5, c, longest, scale, window) + 0.5 * (
                    varlen.attend_plainly(q, k, v, c, longest, scale, window)
                )
        return varlen.attend_plainly(q, k, v, c, longest, scale, window)

    return kernel


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_right_kernel_passes_the_trial(dtype: torch.dtype) -> None:
    assert varlen.agrees(varlen.attend_plainly, torch.device("cpu"), dtype, 64, (4, 2))


@pytest.mark.parametrize("change", ["scale", "window", "borders", "gradient"])
def test_a_wrong_kernel_does_not(change: str) -> None:
    assert not varlen.agrees(spoiled(change), torch.device("cpu"), torch.bfloat16, 64, (4, 2))


def test_a_missing_kernel_is_not_taken() -> None:
    """torch's has no code for a CPU: it raises, and the trial says no."""
    before = torch.get_rng_state()
    assert not varlen._tried(torch.device("cpu"), torch.bfloat16, 64, (4, 2))
    assert torch.equal(torch.get_rng_state(), before), "the trial has random numbers of its own"


GOOD: dict[str, Any] = {
    "device": "cuda", "capability": (8, 0), "dtypes": {torch.bfloat16}, "widths": {128}, "heads": (32, 8),
    "dropout": 0.0,
}  # fmt: skip


def test_what_is_supported() -> None:
    assert varlen.is_supported(**GOOD)
    assert varlen.is_supported(**{**GOOD, "dtypes": {torch.float16}, "capability": (9, 0), "widths": {256}})


@pytest.mark.parametrize(
    "change",
    [
        {"device": "cpu"}, {"capability": (7, 5)}, {"capability": None}, {"dtypes": {torch.float32}},
        {"dtypes": {torch.bfloat16, torch.float32}}, {"widths": {264}}, {"widths": {100}}, {"widths": {128, 64}},
        {"heads": (6, 4)}, {"dropout": 0.1},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_is_not_supported(change: dict[str, Any]) -> None:
    assert not varlen.is_supported(**{**GOOD, **change})


@pytest.mark.parametrize("window", [None, 3, 500])
@pytest.mark.parametrize("device", ["cuda", "meta"])
def test_torch_takes_the_call(device: str, window: int | None) -> None:
    """The signature, with tensors that have no numbers; gradients on ``meta``, since fake ``cuda`` ones need a GPU."""
    with FakeTensorMode():
        shapes, wants = ((10, 4, 64), (10, 2, 64), (10, 2, 64)), device == "meta"
        q, k, v = (torch.empty(s, device=device, dtype=torch.bfloat16, requires_grad=wants) for s in shapes)
        cumulative = torch.empty(3, device=device, dtype=torch.int32)
        out = varlen.attend(q, k, v, cumulative, 6, SCALE, window)
        assert out.shape == q.shape and out.dtype == torch.bfloat16 and out.device.type == device
        if wants:
            gradients = torch.autograd.grad(out.sum(), [q, k, v])
            assert [gradient.shape for gradient in gradients] == list(shapes)


@pytest.mark.parametrize(("window", "wanted"), [(None, (-1, 0)), (3, (2, 0)), (6, (-1, 0)), (500, (-1, 0))])
def test_a_window_counts_the_query_itself(
    window: int | None, wanted: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's window is how far back a query looks; transformers' is how many tokens it sees."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        torch.nn.attention.varlen, "varlen_attn", lambda q, *_, window_size, **__: asked.append(window_size) or q
    )
    q, k, v = random_inputs(10, 4, 2)
    varlen.attend(q, k, v, torch.tensor([0, 4, 10], dtype=torch.int32), 6, SCALE, window)
    assert asked == [wanted]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 7])
def test_on_a_gpu_the_kernel_is_taken_and_right(window: int | None) -> None:
    layout = make_layout(LENGTHS, device="cuda")
    inputs = [x.to("cuda", torch.bfloat16) for x in random_inputs(sum(LENGTHS), 4, 2, 64)]
    q, k, v = (x.transpose(0, 1)[None] for x in inputs)
    assert varlen.can_attend(q, k, v, 0.0) or torch.cuda.get_device_capability() < varlen.OLDEST
    out, _ = packed_attention(torch.nn.Module(), q, k, v, None, scaling=SCALE, layout=layout, sliding_window=window)
    exact = (x.float() for x in inputs)
    wanted = varlen.attend_plainly(*exact, layout.cumulative, layout.longest, SCALE, window)
    torch.testing.assert_close(out[0].float(), wanted, rtol=0.02, atol=0.02)
