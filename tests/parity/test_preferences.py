"""DPO, KTO and ORPO: equal to ten lines of torch, to TRL, and to themselves however a batch is cut into blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from ownchat.config import TrainConfig
from ownchat.model.block import Document
from ownchat.model.load import load_model
from ownchat.model.lora import add_lora
from ownchat.model.score import score_documents
from ownchat.tokenizer.render import render
from ownchat.tokenizer.store import Item, TokenStore, TokenWriter
from ownchat.train.loop import train_step
from ownchat.train.objectives import Likelihood, Objective
from ownchat.train.optim import Optimizer
from ownchat.train.preferences import kto_weights
from ownchat.train.reference import NAME, partners, preference_objective, unrelated
from ownchat.train.signals import StopRequest

BETA = 0.3
SHAPES = ((9, 12, 7), (20, 5, 21), (4, 30, 16), (33, 8, 8))  # tokens of prompt, chosen, rejected
LONGEST = 41
SEEDS = {"kto": 12, "judged": 10}  # of models with a KL above zero
KINDS = ("dpo", "orpo", "kto", "judged")  # judged: KTO on single replies


def pairs(shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> list[tuple[Document, Document]]:
    generator = np.random.default_rng(3)
    made = []
    for prompt, *lengths in shapes:
        head = generator.integers(3, 300, prompt)
        answers = [generator.integers(3, 300, length) for length in lengths]
        both = [(np.concatenate([head, answer]), np.repeat([0, 1], [prompt, len(answer)])) for answer in answers]
        made.append((both[0], both[1]))
    return made


def store(directory: Path, rows: list[tuple[Document, Document]], *, judged: bool = False) -> TokenStore:
    """Pairs; ``judged``: single replies, both to the second question and the chosen ones to the others."""
    with TokenWriter(directory, 320, documents_per_item=1 if judged else 2) as writer:
        for number, both in enumerate(rows):
            for side, (ids, weights) in enumerate(both):
                if not (judged and number != 1 and side == 1):
                    index = {"record": str(number), "group": None, "kind": "preference", "desirable": side == 0}
                    writer.add(ids.tolist(), weights.tolist(), id=f"{number}/{side}", piece=side, **index)
    return TokenStore(directory)


def items_of(tokens: TokenStore) -> list[Item]:
    return [tokens.item(number) for number in range(len(tokens.item_lengths))]


class Kept(Optimizer):
    """Keeps the gradient of the last step."""

    def clip(self, max_norm: float) -> float:
        self.gradients = {name: w.grad.clone() for name, w in self.model.named_parameters() if w.grad is not None}
        return super().clip(max_norm)


def stepped(
    directory: Path, tmp_path: Path, kind: str, cut: list[list[int]], *, method: str = "full", packed: bool = True,
    rows: list[tuple[Document, Document]] | None = None,
) -> tuple[float, dict[str, float], dict[str, torch.Tensor], Objective, TokenStore]:  # fmt: skip
    """Loss, figures and gradient of a model that has moved away from its reference."""
    tokens = store(tmp_path / "tokens", rows or pairs(), judged=kind == "judged")
    model = load_model(directory, packed=packed)
    if method == "lora":
        add_lora(model, rank=4, alpha=8, seed=0)
    else:
        model.requires_grad_(True)
    settings = TrainConfig(preference="kto" if kind == "judged" else kind, preference_beta=BETA)  # type: ignore[arg-type]
    objective = preference_objective(
        settings, model, tokens, items_of(tokens), tmp_path, block_tokens=4096, stop=StopRequest()
    )
    move(model, kind)
    optimizer = Kept(model, weight_decay=0.0)
    optimizer.model = model
    items = items_of(tokens)
    done = train_step(model, objective, optimizer, [[items[n] for n in block] for block in cut], 1e-3, 1e9)
    return done.loss, done.figures, optimizer.gradients, objective, tokens


def move(model: Any, kind: str = "dpo") -> None:
    """Another model than the reference, the same one each time."""
    generator = torch.Generator().manual_seed(SEEDS.get(kind, 5))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.05 * torch.randn(weight.shape, generator=generator)


# ---------------------------------------------------------------------------------------------------- ten lines


def log_probability(model: Any, document: Document) -> torch.Tensor:
    ids, trained = torch.tensor(document[0]), torch.tensor(document[1][1:] == 1)
    logits = model(input_ids=ids[None]).logits[0, :-1].double()
    return logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0][trained].sum()


def naive(kind: str, p: Callable[[Document], torch.Tensor], q: Callable[[Document], torch.Tensor]) -> torch.Tensor:
    rows = pairs()
    gain = lambda document: p(document) - q(document).detach()  # noqa: E731
    if kind == "dpo":
        return torch.stack([-logsigmoid(BETA * (gain(a) - gain(b))) for a, b in rows]).mean()
    if kind == "orpo":
        nll = -sum(p(a) for a, _ in rows) / sum(int(a[1].sum()) for a, _ in rows)  # type: ignore[operator]
        odds = [[(mean := p(d) / int(d[1].sum())) - torch.log(1 - mean.exp()) for d in both] for both in rows]
        return nll + BETA * torch.stack([-logsigmoid(a - b) for a, b in odds]).mean()
    if kind == "kto":
        replies = [(document, side == 0, row) for row, both in enumerate(rows) for side, document in enumerate(both)]
        others = [(rows[row][0], rows[row - 1][0 if wanted else 1]) for _, wanted, row in replies]
    else:
        single = [(rows[0][0], True), (rows[1][0], True), (rows[1][1], False), (rows[2][0], True), (rows[3][0], True)]
        replies = [(document, wanted, row) for row, (document, wanted) in enumerate(single)]
        # the two replies to the second question both get the answer to the first
        others = [(replies[at][0], replies[before][0]) for at, before in enumerate((4, 0, 0, 2, 3))]
    prompt = lambda document: int((document[1] == 0).sum())  # noqa: E731
    mixed = [
        (np.concatenate([a[0][: prompt(a)], b[0][prompt(b) :]])[:LONGEST],
         np.concatenate([a[1][: prompt(a)], b[1][prompt(b) :]])[:LONGEST]) for a, b in others
    ]  # fmt: skip
    kl = float(torch.stack([gain(document).detach() for document in mixed]).mean().clamp(min=0))
    assert kl > 0.01, "else it would not be tested"
    wanted, unwanted = kto_weights(sum(w for _, w, _ in replies), sum(not w for _, w, _ in replies))
    losses = [
        wanted * (1 - torch.sigmoid(BETA * (gain(d) - kl))) if good else
        unwanted * (1 - torch.sigmoid(BETA * (kl - gain(d)))) for d, good, _ in replies
    ]  # fmt: skip
    return torch.stack(losses).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_ten_lines_of_torch(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    count = 5 if kind == "judged" else 4
    loss, _, gradients, _, _ = stepped(tiny_model, tmp_path, kind, [list(range(count))])
    model, base = load_model(tiny_model).requires_grad_(True), load_model(tiny_model)
    move(model, kind)
    wanted = naive(kind, lambda d: log_probability(model, d), lambda d: log_probability(base, d))
    wanted.backward()
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-5)
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "packed"), [("full", True), ("lora", True), ("full", False), ("lora", False)])
def test_blocks_do_not_matter(tiny_model: Path, tmp_path: Path, kind: str, method: str, packed: bool) -> None:
    whole = stepped(tiny_model, tmp_path / "a", kind, [[0, 1, 2, 3]], method=method)
    parts = stepped(tiny_model, tmp_path / "b", kind, [[2], [0, 3], [1]], method=method, packed=packed)
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert parts[1] == pytest.approx(whole[1], rel=1e-4)
    for name, gradient in whole[2].items():
        torch.testing.assert_close(parts[2][name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_validation_is_the_loss_of_training(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    """The valid items are the train items here: so the figures are those of a step over all of them."""
    cut = [[0, 1, 2, 3, *([4] if kind == "judged" else [])]]
    loss, figures, _, objective, tokens = stepped(tiny_model, tmp_path, kind, cut)
    model = load_model(tiny_model, packed=True).requires_grad_(True)
    move(model, kind)
    items = items_of(tokens)
    found = objective.validation(items, score_documents(model, objective.documents(items)))
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    for name, value in figures.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name
    if kind == "judged":  # each of the four desirable replies beside the one that is not
        assert found["accuracy"] * 4 == pytest.approx(round(found["accuracy"] * 4))


def test_reference_is_made_once(tiny_model: Path, tmp_path: Path) -> None:
    tokens = store(tmp_path / "tokens", pairs())
    model = load_model(tiny_model, packed=True)

    def margin() -> float:
        objective = preference_objective(
            TrainConfig(), model, tokens, items_of(tokens), tmp_path, block_tokens=4096, stop=StopRequest()
        )
        items = items_of(tokens)
        return objective.validation(items, score_documents(model, objective.documents(items)))["margin"]

    assert margin() == 0.0, "the model is its own reference when it begins"
    model.requires_grad_(True)
    move(model)
    first = margin()
    assert first != 0.0
    assert margin() == first, "the reference was read, not made again"
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:40])
    assert margin() == 0.0, "a damaged file is not believed: the reference is made again by the model that is there"


def test_partners_have_other_prompts() -> None:
    rows = pairs()
    items = [Item(n, both) for n, both in enumerate([rows[0], rows[1], rows[1], rows[1], rows[2]])]
    found = partners(items.__getitem__, 5)
    assert found.tolist() == [4, 0, 0, 0, 3]
    assert partners(items.__getitem__, 1).tolist() == [0]
    same = [Item(n, rows[0]) for n in range(3)]
    assert partners(same.__getitem__, 3).tolist() == [2, 2, 2], "nothing else is there"
    mixed = unrelated(items[0], items[1], limit=12)
    assert [len(ids) for ids, _ in mixed] == [12, 12], "cut to what the model is known to take"
    assert mixed[0][0][:9].tolist() == rows[0][0][0][:9].tolist() and mixed[0][1].tolist() == [0] * 9 + [1] * 3


# -------------------------------------------------------------------------------------------------------- TRL


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def trl_models(tiny_model: Path, kind: str = "dpo") -> tuple[Any, Any]:
    """Policy and reference as plain transformers models."""
    from transformers import AutoModelForCausalLM

    model, base = (AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32) for _ in range(2))
    move(model, kind)
    return model.train(), base


def arguments(tmp_path: Path) -> dict[str, Any]:
    common = {"report_to": "none", "use_cpu": True, "bf16": False, "fp16": False, "disable_tqdm": True}
    return common | {"output_dir": str(tmp_path / "trl"), "beta": BETA, "gradient_checkpointing": False}


def split(document: Document) -> tuple[list[int], list[int]]:
    start = int((document[1] == 0).sum())
    return document[0][:start].tolist(), document[0][start:].tolist()


def assert_same(ours: tuple, loss: torch.Tensor, model: Any) -> None:
    loss.backward()
    assert ours[0] == pytest.approx(float(loss.detach()), rel=1e-5)
    compared = 0
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(ours[2][name], weight.grad, rtol=1e-4, atol=1e-5, msg=name)
            compared += 1
    assert compared == len(ours[2]) > 10


def test_dpo_is_trl(tiny_model: Path, tmp_path: Path, tokenizer: Any) -> None:
    trl = pytest.importorskip("trl", reason="the peer is not installed")
    from datasets import Dataset
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    model, base = trl_models(tiny_model)
    rows = Dataset.from_list([{"prompt": "What?", "chosen": "Yes.", "rejected": "No."}] * 2)
    trainer = trl.DPOTrainer(
        model, base, args=trl.DPOConfig(**arguments(tmp_path)), train_dataset=rows, processing_class=tokenizer
    )
    examples = [{"prompt_ids": split(a)[0], "chosen_ids": split(a)[1], "rejected_ids": split(b)[1]} for a, b in pairs()]
    loss = trainer.compute_loss(model, DataCollatorForPreference(pad_token_id=0)(examples))
    ours = stepped(tiny_model, tmp_path, "dpo", [[0], [1, 2, 3]])
    assert_same(ours, loss, model)
    assert ours[1]["margin"] == pytest.approx(trainer._metrics["train"]["rewards/margins"][0], rel=1e-4)
    assert ours[1]["accuracy"] == pytest.approx(trainer._metrics["train"]["rewards/accuracies"][0])


def test_kto_is_trl(tiny_model: Path, tmp_path: Path, tokenizer: Any) -> None:
    """One micro-batch of single replies to different questions: there TRL's rotation is ours."""
    trl = pytest.importorskip("trl", reason="the peer is not installed")
    from datasets import Dataset
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    model, base = trl_models(tiny_model, "judged")
    chosen = [both[number == 1] for number, both in enumerate(pairs())]  # of the second question the rejected reply
    desirable = [number != 1 for number in range(4)]
    wanted, unwanted = kto_weights(3, 1)
    rows = Dataset.from_list([{"prompt": "What?", "completion": "Yes.", "label": flag} for flag in desirable])
    settings = arguments(tmp_path) | {"desirable_weight": wanted, "undesirable_weight": unwanted}
    trainer = trl.KTOTrainer(
        model, base, args=trl.KTOConfig(per_device_train_batch_size=4, **settings), train_dataset=rows,
        processing_class=tokenizer,
    )  # fmt: skip
    parts = [split(document) for document in chosen]
    examples = [
        {"prompt_ids": prompt, "completion_ids": reply, "KL_completion_ids": parts[number - 1][1], "label": flag}
        for number, ((prompt, reply), flag) in enumerate(zip(parts, desirable, strict=True))
    ]
    loss = trainer.compute_loss(model, DataCollatorForUnpairedPreference(pad_token_id=0, max_length=LONGEST)(examples))

    with TokenWriter(tmp_path / "tokens", 320) as writer:
        for number, ((ids, weights), flag) in enumerate(zip(chosen, desirable, strict=True)):
            index = {"record": str(number), "group": None, "kind": "preference", "desirable": flag}
            writer.add(ids.tolist(), weights.tolist(), id=str(number), piece=0, **index)
    tokens = TokenStore(tmp_path / "tokens")
    ours = load_model(tiny_model, packed=True).requires_grad_(True)
    objective = preference_objective(
        TrainConfig(preference="kto", preference_beta=BETA), ours, tokens, items_of(tokens)[:1], tmp_path,
        block_tokens=4096, stop=StopRequest(),
    )  # fmt: skip
    move(ours, "judged")
    optimizer = Kept(ours, weight_decay=0.0)
    optimizer.model = ours
    items = items_of(tokens)
    assert max(len(ids) for item in items for ids, _ in item.documents) == LONGEST, "where an unrelated reply is cut"
    done = train_step(ours, objective, optimizer, [items[:2], items[2:]], 1e-3, 1e9)
    assert done.figures["kl"] == pytest.approx(trainer._metrics["train"]["kl"][0], rel=1e-4)
    assert done.figures["kl"] > 0.1
    assert_same((done.loss, done.figures, optimizer.gradients), loss, model)


def test_orpo_is_trl(tiny_model: Path, tmp_path: Path, tokenizer: Any) -> None:
    """TRL also learns the questions by likelihood, as the authors' code does; ours never does. So they are one token
    long here, which nothing predicts, and everything else has to agree."""
    pytest.importorskip("trl", reason="the peer is not installed")
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    model, _ = trl_models(tiny_model)
    rows = Dataset.from_list([{"prompt": "What?", "chosen": "Yes.", "rejected": "No."}] * 2)
    trainer = ORPOTrainer(model, args=ORPOConfig(**arguments(tmp_path)), train_dataset=rows, processing_class=tokenizer)
    short = pairs(tuple((1, chosen, rejected) for _, chosen, rejected in SHAPES))
    batch: dict[str, torch.Tensor] = {}
    for side, name in enumerate(("chosen", "rejected")):
        documents = [both[side] for both in short]
        longest = max(len(ids) for ids, _ in documents)
        fill = lambda values, empty: torch.tensor(  # noqa: E731
            [[*row.tolist(), *[empty] * (longest - len(row))] for row in values]  # noqa: B023
        )
        batch[f"{name}_input_ids"] = fill([ids for ids, _ in documents], 0)
        batch[f"{name}_attention_mask"] = fill([np.ones(len(ids), int) for ids, _ in documents], 0)
        batch[f"{name}_labels"] = fill([np.where(weights == 1, ids, -100) for ids, weights in documents], -100)
    loss, metrics = trainer.get_batch_loss_metrics(model, batch)
    ours = stepped(tiny_model, tmp_path, "orpo", [[0, 1], [2, 3]], rows=short)
    assert_same(ours, loss, model)
    assert ours[1]["margin"] == pytest.approx(metrics["rewards/margins"], rel=1e-4)
    assert ours[1]["accuracy"] == pytest.approx(metrics["rewards/accuracies"])


TOOLS_TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\n' + tools | tojson + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}{{ call | tojson }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALK = [
    {"role": "user", "content": "Is it open?"},
    {"role": "assistant", "content": "I do not know.", "weight": 0},
    {"role": "user", "content": "Then look."},
    {"role": "assistant", "content": "", "tool_calls": '[{"function": {"name": "look", "arguments": {"at": "door"}}}]'},
    {"role": "tool", "content": "open"},
    {"role": "assistant", "content": "It is open."},
]


def test_supervised_fine_tuning_is_trl(tiny_model: Path, tmp_path: Path, tokenizer: Any) -> None:
    """A reply of weight 0, and a call of a tool, beside a plain conversation of another length."""
    trl = pytest.importorskip("trl", reason="the peer is not installed")
    from datasets import Dataset

    tokenizer.chat_template = TOOLS_TEMPLATE
    rendered = [
        render(tokenizer, TALK, [{"name": "look"}]),
        render(tokenizer, [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]),
    ]
    trained = [id for id, weight in zip(rendered[0].ids, rendered[0].weights, strict=True) if weight]
    said = tokenizer.decode(trained)
    assert said.startswith('{"function"') and said.endswith("<|im_end|>It is open.<|im_end|>") and "know" not in said
    longest = max(len(each.ids) for each in rendered)
    rows = [each.ids + [0] * (longest - len(each.ids)) for each in rendered]
    labels = [
        [id if weight else -100 for id, weight in zip(each.ids, each.weights, strict=True)]
        + [-100] * (longest - len(each.ids))
        for each in rendered
    ]
    mask = [[1] * len(each.ids) + [0] * (longest - len(each.ids)) for each in rendered]
    model, _ = trl_models(tiny_model)
    settings = {name: value for name, value in arguments(tmp_path).items() if name != "beta"}
    trainer = trl.SFTTrainer(
        model, args=trl.SFTConfig(**settings), processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"messages": [{"role": "user", "content": "a"}]}]),
    )  # fmt: skip
    named = zip(("input_ids", "attention_mask", "labels"), (rows, mask, labels), strict=True)
    loss = trainer.compute_loss(model, {name: torch.tensor(values) for name, values in named})

    ours = load_model(tiny_model, packed=True).requires_grad_(True)
    move(ours)
    optimizer = Kept(ours, weight_decay=0.0)
    optimizer.model = ours
    items = [
        Item(number, ((np.array(each.ids), np.array(each.weights, np.uint8)),)) for number, each in enumerate(rendered)
    ]
    done = train_step(ours, Likelihood(), optimizer, [items[:1], items[1:]], 1e-3, 1e9)
    assert_same((done.loss, done.figures, optimizer.gradients), loss, model)
