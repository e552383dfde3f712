"""Which way an architecture can be computed: tried on a tiny random model of it, not assumed from a list of names.

The truth is transformers' own model, one document at a time. What the tiny model does not show (it cannot be built, or
the real one has kinds of modules that it lacks) counts as not working, and the general way is taken.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from ownchat.model import attention
from ownchat.model.block import Document, make_block
from ownchat.model.loss import log_probabilities

LARGEST = 30_000_000  # weights of a tiny model: half a second of work
LAYERS = 4  # at least so many of the real model's: some architectures open with layers of another kind
WINDOW = 5  # tokens; shorter than the trial's documents, else a sliding window would not show
VOCABULARY = 64
DIFFERS = 1e-4  # nats; rounding is 1e-6
HOW_HELD = ("training", "is_quantized", "is_loaded_in_4bit", "quantization_method")  # says nothing of what is computed

# Two blocks: documents with a common prefix, as in chats, and without one.
TRIALS: tuple[tuple[np.ndarray, ...], ...] = (
    (np.arange(1, 14), np.r_[1:12, 20:26], np.r_[1:12, 40:50]),
    (np.arange(30, 41), np.arange(60, 43, -1), np.arange(3, 17)),
)


@dataclass(frozen=True)
class Paths:
    """``packed``: attention over packed documents gives what one document at a time gives.
    ``plain_head``: the logits are the last hidden state times the output matrix, and nothing else.
    """

    packed: bool
    plain_head: bool


def try_paths(model: Any) -> Paths:
    """What holds for the architecture of ``model``. Leaves the model, and the state of random numbers, as they are."""
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # of this processor only: seeding others would outlast the fork
        if (tiny := _tiny_model(model)) is None:
            return Paths(packed=False, plain_head=False)
        try:
            wanted = [_plain(tiny, ids) for documents in TRIALS for ids in documents]
        except Exception:  # e.g. a model that wants pictures too
            return Paths(packed=False, plain_head=False)
        tiny.plain_head = _holds(lambda: _has_plain_head(tiny))
        return Paths(packed=_holds(lambda: _packs(tiny, wanted)), plain_head=tiny.plain_head)


def _holds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except Exception:  # whatever an architecture dislikes about it, the general way is right for it
        return False


@torch.no_grad()
def _plain(tiny: Any, ids: np.ndarray) -> Tensor:
    """transformers' own log-probabilities of every token after the first."""
    tokens = torch.from_numpy(ids)[None]
    logits = tiny(input_ids=tokens, use_cache=False).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]


@torch.no_grad()
def _has_plain_head(tiny: Any) -> bool:
    tokens = torch.from_numpy(TRIALS[0][0])[None]
    logits = tiny(input_ids=tokens, use_cache=False).logits
    hidden = tiny.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
    return torch.allclose(hidden @ tiny.get_output_embeddings().weight.T, logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def _packs(tiny: Any, wanted: list[Tensor]) -> bool:
    tiny.set_attn_implementation(attention.NAME)
    if tiny.config._attn_implementation != attention.NAME:
        return False
    blocks = [make_block([_whole(ids) for ids in documents]) for documents in TRIALS]
    tiny.train()  # what packed attention does not have (dropout, perhaps) raises here
    for block in blocks:
        log_probabilities(tiny, block)
    tiny.eval()
    together = torch.cat([log_probabilities(tiny, block) for block in blocks])
    return bool(torch.allclose(together, torch.cat(wanted), rtol=0, atol=DIFFERS))


def _whole(ids: np.ndarray) -> Document:
    return ids, np.ones(len(ids), np.uint8)


def _tiny_model(model: Any) -> Any:
    """A random model with every kind of module that ``model`` has, or None: narrow, else as wide as the real one."""
    for narrow in (True, False):
        try:
            config = tiny_config(model.config, narrow=narrow)
            with torch.device("meta"):
                if sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters()) > LARGEST:
                    continue
            tiny = AutoModelForCausalLM.from_config(config).float().eval()
            if not _kinds(model) <= _kinds(tiny):
                continue
            _shake(tiny)
            _plain(tiny, TRIALS[0][0])
        except Exception:  # sizes that do not go together, in words of each architecture's own
            continue
        return tiny
    return None


@torch.no_grad()
def _shake(tiny: nn.Module) -> None:
    """No weight stays at its start: one that begins as zero (a sink, a bias) would hide what it does."""
    for weight in tiny.parameters():
        if weight.is_floating_point():
            weight.add_(torch.randn_like(weight), alpha=0.3 if weight.ndim < 2 else weight.shape[-1] ** -0.5)


def _kinds(model: nn.Module) -> set[Any]:
    """Classes of modules, with their switches: layers of another kind differ in one of them."""
    kinds = set()
    for module in model.modules():
        if isinstance(module, nn.Linear):  # quantised ones are subclasses; every one is the same to attention
            continue
        switches = {
            (name, value if isinstance(value, str | bool) else value is None)
            for name, value in vars(module).items()
            if not name.startswith("_") and name not in HOW_HELD and isinstance(value, str | bool | int | float | None)
        }
        kinds.add((type(module), frozenset(switches)))
    return kinds


def tiny_config(config: Any, *, narrow: bool) -> Any:
    """A copy with few layers (at least one of each kind), a small vocabulary and short windows."""
    config = copy.deepcopy(config)
    _take_layers(config)
    _put(config, "vocab_size", VOCABULARY)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        _put(config, name, 0)
    for name in list(vars(config)):
        if ("window" in name or name in ("attention_chunk_size", "local_attention")) and _is_number(config, name):
            setattr(config, name, min(getattr(config, name), WINDOW))
    if narrow:
        _make_narrow(config)
    return config


def _take_layers(config: Any) -> None:
    """The first few layers, and the first of each further kind as the lists with an entry for each layer tell them."""
    count = config.num_hidden_layers
    lists = {name: value for name, value in vars(config).items() if isinstance(value, list) and len(value) == count}
    kinds: dict[str, int] = {}
    for number in range(count):
        kinds.setdefault(repr([value[number] for value in lists.values()]), number)
    taken = sorted({*range(min(LAYERS, count)), *kinds.values()})
    config.num_hidden_layers = len(taken)
    for name, value in lists.items():
        setattr(config, name, [value[number] for number in taken])


def _make_narrow(config: Any) -> None:
    """Few heads, in the real model's grouping and of their real width; few experts."""
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    has_head_dim = vars(config).get("head_dim") is not None
    width = 64 if has_head_dim else 4 * (config.hidden_size // heads)
    _put(config, "hidden_size", width)
    _put(config, "num_attention_heads", 4)
    _put(config, "num_key_value_heads", 4 if groups == heads else 1 if groups == 1 else 2)
    for name in ("intermediate_size", "n_inner", "ffn_dim", "moe_intermediate_size", "shared_expert_intermediate_size"):
        _put(config, name, 64)
    _put(config, "word_embed_proj_dim", width)
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        _put(config, name, 4)
    for name, value in {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}.items():
        _put(config, name, value)


def _put(config: Any, name: str, value: int) -> None:
    """Only where there is a number already: None often is a switch."""
    if _is_number(config, name):
        setattr(config, name, value)


def _is_number(config: Any, name: str) -> bool:
    value = getattr(config, name, None)
    return isinstance(value, int) and not isinstance(value, bool)


@contextmanager
def quiet() -> Iterator[None]:
    """Architectures warn about settings of the tiny model, which nobody chose."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(50)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
