"""Learning from preferences: DPO, KTO and ORPO as objectives of the one loop.

An item is a pair, (chosen, rejected) as two documents whose prompts have weight 0, or for KTO also a single reply that
somebody judged. A reply's log-probability is the sum over its trained tokens, in nats, in float64: what counts is a
small difference of large sums.

The reference is the model as it was when the phase began. It never changes, so what it says of every reply is
computed once and saved (:mod:`ownchat.train.reference`), and no second model is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ownchat.model.block import Block, Document
from ownchat.model.loss import log_probabilities
from ownchat.tokenizer.store import Item
from ownchat.train.distributed import ALONE, World
from ownchat.train.objectives import Terms, documents_of, token_accuracy

HIGHEST_RATIO = 4 / 3  # of desirable to undesirable replies, weights included: Ethayarajh et al. 2024, equation 8


class DPO:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290): the mean over pairs of

        -log sigmoid(beta * ((log p - log q)(chosen) - (log p - log q)(rejected)))

    p: the model, q: the reference. ``train``, ``valid``: log q of both replies of every item, float64 [items, 2].
    """

    coefficients: ClassVar[dict[str, float]] = {"dpo": 1.0}

    def __init__(self, beta: float, *, train: np.ndarray, valid: np.ndarray) -> None:
        self._beta, self._train, self._valid = beta, train, valid

    def counts(self, batch: Sequence[Item]) -> dict[str, int]:
        return dict.fromkeys(("dpo", "margin", "accuracy"), len(batch))

    def prepare(self, model: Any, batch: Sequence[Item]) -> None:
        return None

    def terms(self, model: Any, block: Block, items: Sequence[Item], context: Any) -> Terms:
        reference = self._train[[item.number for item in items]]
        margins = self._margins(replies(model, block), reference)
        return {"dpo": -logsigmoid(margins).sum(), **_figures(margins)}

    def documents(self, valid: Sequence[Item]) -> list[Document]:
        return documents_of(valid)

    def validation(
        self, valid: Sequence[Item], scores: Sequence[np.ndarray], likeliest: Sequence[np.ndarray] = ()
    ) -> dict[str, float]:
        margins = self._margins(sums(scores), self._valid)
        return {"loss": float(-logsigmoid(margins).mean()), **_means(margins), **token_accuracy(likeliest[0::2])}

    def _margins(self, totals: Tensor, reference: np.ndarray) -> Tensor:
        """By how much more the chosen reply is rewarded, [items]. ``totals``: [2 items] of the model."""
        return self._beta * _difference(totals - _like(totals, reference))


class ORPO:
    """Odds ratio preference optimisation (Hong et al. 2024, arXiv:2403.07691), without a reference:

        nll of the chosen replies + beta * mean over pairs of -log sigmoid(log odds(chosen) - log odds(rejected))

    odds = P / (1 - P), P: the geometric mean of a reply's token probabilities. The nll is the mean over the chosen
    replies' tokens in the global batch; prompts are context, as everywhere.
    """

    def __init__(self, beta: float) -> None:
        self.coefficients = {"nll": 1.0, "odds": beta}
        self._beta = beta

    def counts(self, batch: Sequence[Item]) -> dict[str, int]:
        tokens = sum(int(np.count_nonzero(item.documents[0][1][1:])) for item in batch)
        return {"nll": tokens, **dict.fromkeys(("odds", "margin", "accuracy"), len(batch))}

    def prepare(self, model: Any, batch: Sequence[Item]) -> None:
        return None

    def terms(self, model: Any, block: Block, items: Sequence[Item], context: Any) -> Terms:
        totals = replies(model, block)
        odds, margins = self._parts(totals, np.array(block.trained))
        return {"nll": -totals[0::2].sum(), "odds": odds.sum(), **_figures(margins)}

    def documents(self, valid: Sequence[Item]) -> list[Document]:
        return documents_of(valid)

    def validation(
        self, valid: Sequence[Item], scores: Sequence[np.ndarray], likeliest: Sequence[np.ndarray] = ()
    ) -> dict[str, float]:
        totals, lengths = sums(scores), np.array([len(part) for part in scores])
        odds, margins = self._parts(totals, lengths)
        nll, odds_ratio = float(-totals[0::2].sum()) / int(lengths[0::2].sum()), float(odds.mean())
        found = {"loss": nll + self._beta * odds_ratio, "nll": nll, "odds": odds_ratio}
        return found | _means(margins) | token_accuracy(likeliest[0::2])

    def _parts(self, totals: Tensor, lengths: np.ndarray) -> tuple[Tensor, Tensor]:
        """The pairs' losses and margins, each [items]; ``totals`` and ``lengths``: [2 items]."""
        means = totals / _like(totals, lengths)
        return -logsigmoid(_difference(means - log_not(means))), self._beta * _difference(means)


@dataclass(frozen=True)
class Unrelated:
    """Replies of a split after prompts that they do not belong to, for KTO's KL.

    ``documents(place)``: for each reply of the item at this place, its prompt with a reply to another one.
    ``reference``: log q of these, float64 [items, replies of an item].
    """

    documents: Callable[[int], Sequence[Document]]
    reference: np.ndarray


class KTO:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv:2402.01306): the mean over replies of

        w_desirable * (1 - sigmoid(beta * (r - kl)))  or  w_undesirable * (1 - sigmoid(beta * (kl - r)))

    r = log p - log q. kl, without gradient and at least 0: the mean of r over the global batch with replies to other
    prompts in the place of the real ones. ``train``, ``valid``: log q of every reply, float64 [items, replies of an
    item]. ``weights``: of desirable and undesirable replies (:func:`kto_weights`). ``block_tokens``: of a forward
    pass for kl.
    """

    coefficients: ClassVar[dict[str, float]] = {"kto": 1.0}

    def __init__(
        self,
        beta: float,
        weights: tuple[float, float],
        *,
        train: np.ndarray,
        valid: np.ndarray,
        train_unrelated: Unrelated,
        valid_unrelated: Unrelated,
        block_tokens: int,
        world: World = ALONE,
    ) -> None:
        self._beta, self._weights, self._block_tokens, self._world = beta, weights, block_tokens, world
        self._train, self._valid = train, valid
        self._train_unrelated, self._valid_unrelated = train_unrelated, valid_unrelated

    def counts(self, batch: Sequence[Item]) -> dict[str, int]:
        counts = dict.fromkeys(("kto", "kl"), sum(len(item.documents) for item in batch))
        return counts | (dict.fromkeys(("margin", "accuracy"), len(batch)) if _are_pairs(batch) else {})

    def prepare(self, model: Any, batch: Sequence[Item]) -> float:
        documents = [document for item in batch for document in self._train_unrelated.documents(item.number)]
        scores = self._world.score(model, documents, block_tokens=self._block_tokens)
        return _kl(sums(scores), self._train_unrelated.reference[[item.number for item in batch]])

    def terms(self, model: Any, block: Block, items: Sequence[Item], context: float) -> Terms:
        totals = replies(model, block)
        gains = totals - _like(totals, self._train[[item.number for item in items]])
        losses = self._losses(gains, items, context)
        terms = {"kto": losses.sum(), "kl": losses.new_tensor(context * len(losses))}
        return terms | (_figures(self._beta * _difference(gains)) if _are_pairs(items) else {})

    def documents(self, valid: Sequence[Item]) -> list[Document]:
        others = [document for place in range(len(valid)) for document in self._valid_unrelated.documents(place)]
        return documents_of(valid) + others

    def validation(
        self, valid: Sequence[Item], scores: Sequence[np.ndarray], likeliest: Sequence[np.ndarray] = ()
    ) -> dict[str, float]:
        totals, others = sums(scores).chunk(2)
        kl = _kl(others, self._valid_unrelated.reference)
        gains = totals - _like(totals, self._valid)
        losses = self._losses(gains, valid, kl)
        if _are_pairs(valid):
            margins = self._beta * _difference(gains)
        else:  # every desirable reply beside every undesirable one
            wanted = _desirable(valid)
            margins = (self._beta * (gains[wanted][:, None] - gains[~wanted][None])).ravel()
        good = [part for part, flag in zip(likeliest, _desirable(valid).tolist(), strict=False) if flag]
        found = {"loss": float(losses.mean()), "kl": kl, **(_means(margins) if len(margins) else {})}
        return found | token_accuracy(good)

    def _losses(self, gains: Tensor, items: Sequence[Item], kl: float) -> Tensor:
        """[replies]; ``gains``: log p - log q."""
        wanted = _desirable(items).to(gains.device)
        signs = torch.where(wanted, 1.0, -1.0).to(gains.dtype)
        desirable, undesirable = map(gains.new_tensor, self._weights)
        weights = torch.where(wanted, desirable, undesirable)
        return weights * (1 - torch.sigmoid(self._beta * signs * (gains - kl)))


def kto_weights(desirable: int, undesirable: int) -> tuple[float, float]:
    """Weights of desirable and undesirable replies: the rarer kind weighs more, so that the two together stand in a
    ratio between 1 and :data:`HIGHEST_RATIO` (Ethayarajh et al. 2024, equation 8).

    >>> kto_weights(100, 100), kto_weights(50, 100), kto_weights(400, 100)
    ((1.0, 1.0), (2.0, 1.0), (1.0, 3.0))
    """
    if not desirable or not undesirable:
        return 1.0, 1.0
    ratio = desirable / undesirable
    return max(1.0, 1 / ratio), max(1.0, ratio / HIGHEST_RATIO)


def replies(model: Any, block: Block) -> Tensor:
    """Log-probability of every document's reply, with gradient: float64 [documents]."""
    parts = log_probabilities(model, block).double().split(block.trained)
    return torch.stack([part.sum() for part in parts])


def log_not(log_probability: Tensor) -> Tensor:
    """log(1 - p) of log p, exact near both ends.

    >>> log_not(torch.tensor([0.25, 0.75]).log()).exp().round(decimals=4).tolist()
    [0.75, 0.25]
    """
    x = log_probability.clamp(max=-1e-12)  # a probability of 1 has no finite odds
    small = x < -0.6931471805599453
    # where() passes gradients of both sides on, and 0 times infinity is not a number: so each side gets its own x
    far = torch.log1p(-torch.exp(torch.where(small, x, torch.full_like(x, -1.0))))
    return torch.where(small, far, torch.log(-torch.expm1(torch.where(small, torch.full_like(x, -0.5), x))))


def sums(scores: Sequence[np.ndarray]) -> Tensor:
    """Scores of tokens to scores of documents: float64 [documents]."""
    return torch.tensor([float(part.sum()) for part in scores], dtype=torch.float64)


def _are_pairs(items: Sequence[Item]) -> bool:
    return len(items[0].documents) == 2


def _desirable(items: Sequence[Item]) -> Tensor:
    """bool [replies]: the chosen one of a pair is, the rejected one is not."""
    return torch.tensor([flag for item in items for flag in item.desirable])


def _like(totals: Tensor, values: np.ndarray) -> Tensor:
    return torch.as_tensor(values.ravel(), dtype=totals.dtype, device=totals.device)


def _difference(values: Tensor) -> Tensor:
    """Chosen minus rejected: [2 items] -> [items]."""
    return values[0::2] - values[1::2]


def _kl(totals: Tensor, reference: np.ndarray) -> float:
    return max(0.0, float((totals - _like(totals, reference)).mean()))


def _figures(margins: Tensor) -> Terms:
    """Sums to look at: the margin, and in how many pairs the chosen reply is rewarded more (equally: half a pair)."""
    margins = margins.detach()
    return {"margin": margins.sum(), "accuracy": (torch.sign(margins) + 1).sum() / 2}


def _means(margins: Tensor) -> dict[str, float]:
    return {name: float(total) / len(margins) for name, total in _figures(margins).items()}
