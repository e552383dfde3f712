"""AdamW and Muon on float32 master weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ownchat.train.checkpoint import Rows, Saved
from ownchat.train.distributed import ALONE, World
from ownchat.train.muon import MOMENTUM, Muon, hidden_matrices


class Optimizer:
    """AdamW (Loshchilov and Hutter 2019) over float32 masters of everything that requires a gradient.

    With ``kind`` "muon" hidden matrices are moved by :mod:`~ownchat.train.muon` instead; ``momentum``: its own;
    ``dtype``: of its products.

    Weights that are float32 already are their own masters. Others (a bfloat16 model in full fine-tuning) get one,
    and their gradients are summed in float32 over the blocks of a batch, as they come. Of weights that are spread over
    processes (float32 then) only this process's rows are kept and moved: the results are the same.
    """

    def __init__(
        self,
        model: Any,
        *,
        weight_decay: float,
        kind: Literal["adamw", "muon"] = "adamw",
        betas: tuple[float, float] = (0.9, 0.999),
        momentum: float = MOMENTUM,
        dtype: torch.dtype = torch.float32,
        world: World = ALONE,
    ) -> None:
        self._world = world
        self.names: list[str] = []
        self.rows: dict[str, Rows] = {}  # of every tensor of the state that is spread over processes
        self._shards: list[tuple[Any, nn.Parameter]] = []  # (a weight that is spread, this process's rows)
        self._shapes: dict[str, torch.Size] = {}  # of these weights
        self.num_trained = 0  # weights, of all processes
        self._copies: list[tuple[nn.Parameter, nn.Parameter]] = []  # (the model's weight, its master)
        self._masters: list[nn.Parameter] = []
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                self.names.append(name)
                self.num_trained += weight.numel()
                if hasattr(weight, "to_local"):
                    self._masters.append(self._own_rows(name, weight))
                else:
                    self._masters.append(weight if weight.dtype == torch.float32 else self._make_master(weight))
        by_name = dict(zip(self.names, self._masters, strict=True))
        chosen = hidden_matrices(model) if kind == "muon" else set()
        hidden = {name: master for name, master in by_name.items() if name in chosen}
        rows = {name: self.rows[f"master.{name}"] for name in hidden if f"master.{name}" in self.rows}
        self._muon = Muon(hidden, dtype=dtype, whole=self._whole if rows else None, rows=rows, momentum=momentum)
        rest = [master for name, master in by_name.items() if name not in hidden]
        decayed = [master for master in rest if master.ndim >= 2]
        others = [master for master in rest if master.ndim < 2]
        self._weight_decay = weight_decay
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._adam = torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, betas=betas, fused=True)
        # AdamW would make its moments in the first step, half of them when memory runs out there; so they are made now.
        for master in rest:
            moments = {"exp_avg": torch.zeros_like(master), "exp_avg_sq": torch.zeros_like(master)}
            self._adam.state[master] = {"step": torch.zeros((), device=master.device), **moments}

    def _make_master(self, weight: nn.Parameter) -> nn.Parameter:
        master = nn.Parameter(weight.detach().float())

        def collect(parameter: Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            if gradient is None:
                return
            if master.grad is None:
                master.grad = gradient.float()
            else:
                master.grad += gradient

        weight.register_post_accumulate_grad_hook(collect)
        self._copies.append((weight, master))
        return master

    def _own_rows(self, name: str, weight: Any) -> nn.Parameter:
        """This process's rows of a weight that FSDP2 spreads by rows, in the same memory."""
        each = -(-weight.shape[0] // self._world.size)
        first = min(weight.shape[0], self._world.rank * each)
        local = weight.detach().to_local()
        for kind in ("master", "exp_avg", "exp_avg_sq", "momentum"):
            self.rows[f"{kind}.{name}"] = (first, first + len(local))
        self._shards.append((weight, nn.Parameter(local)))
        self._shapes[name] = weight.shape
        return self._shards[-1][1]

    def clip(self, max_norm: float) -> float:
        """Scale the gradient to at most ``max_norm``; returns its norm before, over all processes."""
        for weight, rows in self._shards:
            rows.grad = None if weight.grad is None else weight.grad.to_local()
        if self._world.alone:
            return float(nn.utils.clip_grad_norm_(self._masters, max_norm))
        gradients = [master.grad for master in self._masters if master.grad is not None]
        norm = self._world.sum(nn.utils.get_total_norm(gradients).double().square()).sqrt()
        nn.utils.clip_grads_with_norm_(self._masters, max_norm, norm.float())
        return float(norm)

    def step(self, learning_rate: float) -> None:
        """Move the masters, copy them to the model, forget the gradient."""
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._adam.step()
        self._muon.step(learning_rate, self._weight_decay)
        self.drop_gradients()
        self._publish()

    def _whole(self, names: Sequence[str], updates: Sequence[Tensor]) -> list[Tensor]:
        """All rows of tensors of which every process has some: each puts in its own, and they are summed."""
        if not names:
            return []
        shapes = [self._shapes[name] for name in names]
        sizes = [math.prod(shape) for shape in shapes]
        held = updates[0].new_zeros(sum(sizes))
        wholes = [part.view(shape) for part, shape in zip(held.split(sizes), shapes, strict=True)]
        for name, update, whole in zip(names, updates, wholes, strict=True):
            first, last = self.rows[f"master.{name}"]
            whole[first:last] = update
        self._world.sum(held)
        return wholes

    def drop_gradients(self) -> None:
        """Forget the gradient, also that of a step that was not finished."""
        for weight in (*self._masters, *(weight for weight, _ in (*self._copies, *self._shards))):
            weight.grad = None

    def _moments(self, name: str, master: nn.Parameter) -> dict[str, Tensor]:
        """What the optimiser holds beside a master."""
        held = self._muon.momentum.get(name)
        return self._adam.state.get(master, {}) if held is None else {"momentum": held}

    def state(self) -> dict[str, Tensor]:
        """Masters and moments by name, all float32: what a resume needs to go on bit for bit."""
        tensors: dict[str, Tensor] = {}
        for name, master in zip(self.names, self._masters, strict=True):
            tensors[f"master.{name}"] = master.detach()
            for key, value in self._moments(name, master).items():
                tensors[f"{key}.{name}"] = value
        return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}

    def load_masters(self, saved: Saved) -> None:
        """Begin with the weights that another phase ended with; moments and steps stay at nothing."""
        with torch.no_grad():
            for name, master in zip(self.names, self._masters, strict=True):
                master.copy_(saved.read(f"master.{name}", self.rows.get(f"master.{name}")))
        self._publish()

    def load(self, saved: Saved) -> None:
        """The reverse of :meth:`state`."""
        with torch.no_grad():
            for name, master in zip(self.names, self._masters, strict=True):
                rows = self.rows.get(f"master.{name}")
                master.copy_(saved.read(f"master.{name}", rows))
                for key, held in self._moments(name, master).items():
                    held.copy_(saved.read(f"{key}.{name}", None if key == "step" else rows))
        self._publish()

    @torch.no_grad()
    def _publish(self) -> None:
        for weight, master in self._copies:
            weight.copy_(master)
