"""The reference engine against ``model.generate``, and what callers rely on."""

from __future__ import annotations

import itertools
import math
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

import ownchat.generate.hf as hf
from ownchat.errors import ModelError, RunError, UserError
from ownchat.generate.engine import Delta, Request, Sampling, Usage
from ownchat.generate.hf import HfEngine, chat_engine
from ownchat.generate.sampling import process

QUESTIONS = ["hello", "Can I return?", "Was kostet der Versand?", "a", "The pump makes a noise, what now? " * 3]


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> HfEngine:
    return chat_engine(tiny_model)


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="module")
def prompts(engine: HfEngine) -> list[list[int]]:
    return [
        engine.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in QUESTIONS
    ]


def run(engine: HfEngine, request: Request, cancel: threading.Event | None = None) -> tuple[str, list[int], Delta]:
    deltas = list(engine.stream(request, cancel))
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    return "".join(delta.text for delta in deltas), [id for delta in deltas for id in delta.ids], deltas[-1]


def generated(model: LlamaForCausalLM, prompt: list[int], max_tokens: int, **options: object) -> list[int]:
    ids = torch.tensor([prompt])
    whole = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_tokens, **options
    )
    return whole[0, len(prompt) :].tolist()


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_generate(
    engine: HfEngine, plain: LlamaForCausalLM, prompts: list[list[int]], penalty: float
) -> None:
    for prompt in prompts:
        _, ids, last = run(engine, Request(ids=prompt, max_tokens=60, sampling=Sampling(repetition_penalty=penalty)))
        assert ids == generated(plain, prompt, 60, repetition_penalty=penalty)
        assert last.usage == Usage(len(prompt), len(ids))
        assert last.finish_reason == ("stop" if ids[-1] == 2 else "length") and not last.stopped


def test_a_prompt_read_in_chunks_gives_the_same_answer(
    engine: HfEngine, plain: LlamaForCausalLM, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf, "CHUNK_TOKENS", 7)
    _, ids, _ = run(engine, Request(ids=prompts[4], max_tokens=30))
    assert ids == generated(plain, prompts[4], 30)


def test_messages_and_ids_are_the_same_request(engine: HfEngine, prompts: list[list[int]]) -> None:
    messages = [{"role": "user", "content": QUESTIONS[1]}]
    assert run(engine, Request(messages=messages, max_tokens=20)) == run(engine, Request(ids=prompts[1], max_tokens=20))


def test_streamed_text_is_the_decoded_text(engine: HfEngine, prompts: list[list[int]]) -> None:
    for seed in range(10):
        text, ids, _ = run(
            engine, Request(ids=prompts[0], max_tokens=80, sampling=Sampling(temperature=1.5, seed=seed))
        )
        assert text == engine.tokenizer.decode(ids, skip_special_tokens=True) == engine.text(ids)


def test_sampling_is_repeatable_and_goes_on_from_the_middle(engine: HfEngine, prompts: list[list[int]]) -> None:
    def sample(prompt: list[int], max_tokens: int, seed: int | None) -> list[int]:
        sampling = Sampling(temperature=1.0, top_k=50, top_p=0.95, seed=seed)
        return run(engine, Request(ids=prompt, max_tokens=max_tokens, sampling=sampling))[1]

    whole = sample(prompts[1], 30, 5)
    torch.manual_seed(123)
    assert sample(prompts[1], 30, 5) == whole
    assert sample([*prompts[1], *whole[:10]], 20, 5) == whole[10:]
    assert sample(prompts[1], 30, 6) != whole
    assert sample(prompts[1], 30, None) != sample(prompts[1], 30, None)


def test_an_end_token_ends_the_answer_and_has_no_text(
    engine: HfEngine, plain: LlamaForCausalLM, prompts: list[list[int]]
) -> None:
    ids = generated(plain, prompts[1], 40)
    ending = HfEngine(engine.model, engine.tokenizer, end_ids=[ids[12]])
    first = ids.index(ids[12])
    text, got, last = run(ending, Request(ids=prompts[1], max_tokens=40))
    assert got == ids[: first + 1]
    assert text == engine.text(ids[:first]) or ids[first] in engine.end_ids
    assert last.finish_reason == "stop"


def test_end_tokens_come_from_all_sources(tiny_model: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(tiny_model, tmp_path / "model")
    (directory / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert chat_engine(directory).end_ids == {2, 7, 9}


def test_a_stop_text_over_several_tokens_never_leaks(engine: HfEngine, prompts: list[list[int]]) -> None:
    sampling = {"temperature": 1.5, "seed": 4}
    whole, ids, _ = run(engine, Request(ids=prompts[0], max_tokens=80, sampling=Sampling(**sampling)))
    tried = 0
    for start in range(5, len(whole) - 6, 9):
        stop = whole[start : start + 6]
        text, got, last = run(
            engine, Request(ids=prompts[0], max_tokens=80, sampling=Sampling(**sampling, stop=(stop,)))
        )
        assert text == whole[: whole.index(stop)]
        assert last.finish_reason == "stop" and last.stopped
        assert got == ids[: len(got)]
        tried += 1
    assert tried >= 5


def test_half_a_stop_text_is_shown_at_the_end(engine: HfEngine, prompts: list[list[int]]) -> None:
    text, _, _ = run(engine, Request(ids=prompts[1], max_tokens=10))
    again, _, last = run(engine, Request(ids=prompts[1], max_tokens=10, sampling=Sampling(stop=(text[-2:] + "never",))))
    assert (again, last.finish_reason) == (text, "length")


def test_a_special_token_can_be_a_stop_text(engine: HfEngine, tiny_model: Path, prompts: list[list[int]]) -> None:
    sampling = Sampling(temperature=5.0, seed=2, stop=("<|im_start|>", "<|endoftext|>"))
    _, ids, last = run(engine, Request(ids=prompts[0], max_tokens=400, sampling=sampling))
    assert last.finish_reason == "stop" and ids[-1] in (0, 1, 2) and last.stopped == (ids[-1] != 2)
    assert not {0, 1, 2} & set(ids[:-1])


def test_logprobs_are_the_models_own(engine: HfEngine, plain: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    sampling = Sampling(temperature=0.5, top_k=20, repetition_penalty=1.2, seed=0)
    deltas = list(engine.stream(Request(ids=prompts[1], max_tokens=12, sampling=sampling)))
    ids = [*prompts[1], *(id for delta in deltas for id in delta.ids)]
    with torch.no_grad():
        expected = plain(torch.tensor([ids])).logits[0].log_softmax(-1)
    start = len(prompts[1])
    for place, delta in enumerate(deltas, start):
        assert delta.logprobs[0] == pytest.approx(float(expected[place - 1, ids[place]]), abs=1e-4)
    mask = [0] * start + [1] * (len(ids) - start)
    assert engine.score(ids, mask) == pytest.approx([delta.logprobs[0] for delta in deltas], abs=1e-4)


def test_score_in_chunks_equals_one_pass(
    engine: HfEngine, plain: LlamaForCausalLM, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf, "SCORE_TOKENS", 8)
    ids, mask = prompts[4], [int(place % 3 == 1 or place > 40) for place in range(len(prompts[4]))]
    with torch.no_grad():
        logits = plain(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [float(logits[place - 1, ids[place]]) for place in range(len(ids)) if mask[place]]
    assert engine.score(ids, mask) == pytest.approx(expected, abs=1e-4)
    assert engine.score(ids, [0] * len(ids)) == []
    assert all(math.isfinite(value) and value < 0 for value in expected)


def test_score_refuses_what_has_no_probability(engine: HfEngine) -> None:
    for ids, mask in [([1, 2], [1, 1]), ([1, 2], [0]), ([1] * 513, [0] * 513)]:
        with pytest.raises(UserError):
            engine.score(ids, mask)


def test_cancel_ends_within_one_token(engine: HfEngine, prompts: list[list[int]]) -> None:
    cancel, seen = threading.Event(), []
    for delta in engine.stream(Request(ids=prompts[0], max_tokens=100), cancel):
        seen.append(delta)
        if len(seen) == 5:
            cancel.set()
    assert len(seen) == 6
    assert seen[-1].finish_reason == "cancelled" and seen[-1].ids == ()
    assert seen[-1].usage == Usage(len(prompts[0]), 5)
    assert "".join(delta.text for delta in seen) == engine.text([id for delta in seen for id in delta.ids])


def test_cancelled_before_it_began(engine: HfEngine, prompts: list[list[int]]) -> None:
    cancel, passes = threading.Event(), []
    cancel.set()
    hook = engine.model.register_forward_pre_hook(lambda *_: passes.append(1))
    deltas = list(engine.stream(Request(ids=prompts[0]), cancel))
    hook.remove()
    assert deltas == [Delta("", (), (), "cancelled", Usage(len(prompts[0]), 0))]
    assert passes == [], "a long prompt is not read for nobody"


def test_the_context_bounds_prompt_and_answer(engine: HfEngine) -> None:
    assert engine.context == 512
    quiet = HfEngine(engine.model, engine.tokenizer, end_ids=[])
    _, ids, last = run(quiet, Request(ids=[5, 6] * 254, max_tokens=100))
    assert len(ids) == 4 and last.finish_reason == "length"
    with pytest.raises(UserError, match=r"512 tokens do not fit.*512"):
        engine.stream(Request(ids=[5, 6] * 256))
    with pytest.raises(UserError, match="do not fit"):
        engine.answer_batch([[5, 6], [5] * 600], 4)


@pytest.mark.parametrize(
    "values",
    [
        {"ids": []},
        {"ids": [1, 320]},
        {"ids": [-1]},
        {"ids": [1], "schema": {"type": "object"}},
        {"ids": [1], "adapter": "x"},
        {"ids": [1], "adapter": "base"},
    ],
)
def test_what_cannot_be_done_is_refused_at_once(engine: HfEngine, values: dict) -> None:
    with pytest.raises(UserError):
        engine.stream(Request(**values))


def test_a_request_has_ids_or_messages() -> None:
    for values in [{}, {"ids": [1], "messages": []}, {"ids": [1], "max_tokens": 0}]:
        with pytest.raises(UserError):
            Request(**values)


@pytest.mark.parametrize("batch_size", [2, 32])
def test_batched_answers_equal_single_ones(engine: HfEngine, prompts: list[list[int]], batch_size: int) -> None:
    one_by_one = [run(engine, Request(ids=prompt, max_tokens=50))[1] for prompt in prompts]
    done = []
    assert engine.answer_batch(prompts, 50, batch_size=batch_size, progress=done.append) == one_by_one
    assert done == [1] * len(prompts)
    assert engine.answer_batch([], 50) == []


def test_rows_leave_the_batch_when_they_end(engine: HfEngine, prompts: list[list[int]]) -> None:
    plain_answers = [run(engine, Request(ids=prompt, max_tokens=50))[1] for prompt in prompts]
    ends = {plain_answers[1][9], plain_answers[3][20]}  # tokens that occur in some answers, at different places
    ending = HfEngine(engine.model, engine.tokenizer, end_ids=ends)
    singles = [run(ending, Request(ids=prompt, max_tokens=50))[1] for prompt in prompts]
    assert len({len(answer) for answer in singles}) > 1
    assert ending.answer_batch(prompts, 50) == singles


@pytest.mark.parametrize("after", [0, 12])  # passes that succeed: memory runs out at once, or between two tokens
def test_memory_that_runs_out_halves_the_batch(
    engine: HfEngine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    expected = engine.answer_batch(prompts, 30)
    plain, passes = engine._forward, []

    def small(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        passes.append(len(ids))
        if len(ids) > 2 and len(passes) > after:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return plain(ids, *rest)

    monkeypatch.setattr(engine, "_forward", small)
    done: list[int] = []
    assert engine.answer_batch(prompts, 30, progress=done.append) == expected
    assert done == [1] * len(prompts) and max(passes) == len(prompts) > 3
    monkeypatch.setattr(engine, "_forward", lambda *_: torch.empty(1 << 60))
    with pytest.raises(RunError, match="cannot be answered alone"):
        engine.answer_batch(prompts, 30)
    monkeypatch.setattr(engine, "_forward", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        engine.answer_batch(prompts, 30)


def test_absolute_positions_are_right_beside_padding(engine: HfEngine, prompts: list[list[int]]) -> None:
    """Rotary models do not notice positions that are all shifted; GPT-2, which learns one vector each, does."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=320, n_positions=256, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)
    absolute = HfEngine(GPT2LMHeadModel(config).eval(), engine.tokenizer)
    singles = [run(absolute, Request(ids=prompt, max_tokens=30))[1] for prompt in prompts]
    assert absolute.answer_batch(prompts, 30) == singles
    assert singles[1] == generated(absolute.model, prompts[1], 30)[: len(singles[1])]
    assert absolute.context == 256


def test_one_model_answers_as_base_and_as_tuned(
    engine: HfEngine, tiny_model: Path, adapter: Path, prompts: list[list[int]]
) -> None:
    both = chat_engine(tiny_model, adapter=adapter)
    base, tuned = (run(both, Request(ids=prompts[1], max_tokens=30, adapter=name))[1] for name in ("base", None))
    assert base == run(engine, Request(ids=prompts[1], max_tokens=30))[1]
    assert tuned != base
    streams = [both.stream(Request(ids=prompts[1], max_tokens=30, adapter=name)) for name in ("base", None)]
    mixed = list(zip(*streams, strict=False))  # turn and turn about: neither disturbs the other
    assert [delta.ids[0] for delta, _ in mixed] == base[: len(mixed)]
    assert [delta.ids[0] for _, delta in mixed] == tuned[: len(mixed)]
    stopped = both.stream(Request(ids=prompts[1], adapter="base"))
    next(stopped)
    stopped.close()
    with torch.no_grad():  # whoever owns the model finds its adapter switched on
        logits = both.model(torch.tensor([prompts[1]], device=both.model.device)).logits[0, -1]
    assert int(logits.argmax()) == tuned[0]
    assert both.answer_batch(prompts, 20, adapter="base") == engine.answer_batch(prompts, 20)
    assert both.score(prompts[0], [0] + [1] * (len(prompts[0]) - 1), adapter="base") == pytest.approx(
        engine.score(prompts[0], [0] + [1] * (len(prompts[0]) - 1)), abs=1e-5
    )


def test_pickled_adapters_are_refused(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    pickled = shutil.copytree(adapter, tmp_path / "adapter")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ModelError, match="no adapter_model"):
        chat_engine(tiny_model, adapter=pickled)


# ------------------------------------------------------------------------- what OpenAI's API has beside sampling


def test_frequency_and_presence_count_the_answer_only(engine: HfEngine) -> None:
    logits = torch.tensor([1.0, 2.0, 3.0, 4.0])
    history = torch.tensor([0, 0, 3, 2, 2])  # the answer begins at the third
    found = process(logits, history, Sampling(frequency_penalty=0.5, presence_penalty=0.25), start=2)
    assert found.tolist() == [1.0, 2.0, 3.0 - 1.25, 4.0 - 0.75]
    biased = process(logits, history, Sampling(logit_bias={1: 5.0, 3: -100.0}))
    assert biased.tolist() == [1.0, 7.0, 3.0, -96.0]
    both = process(logits, history, Sampling(repetition_penalty=2, frequency_penalty=1, logit_bias={0: 1.0}), start=2)
    assert both.tolist() == [1.0, 2.0, 1.5 - 2, 2.0 - 1]


def test_a_bias_is_obeyed(engine: HfEngine, prompts: list[list[int]]) -> None:
    _, ids, _ = run(engine, Request(ids=prompts[0], max_tokens=4, sampling=Sampling(logit_bias={77: 100.0})))
    assert ids == [77] * 4
    with pytest.raises(UserError, match="there is no token"):
        engine.stream(Request(ids=prompts[0], sampling=Sampling(logit_bias={10**6: 1.0})))


def test_the_likeliest_stand_beside_each_token(engine: HfEngine, prompts: list[list[int]]) -> None:
    for delta in engine.stream(Request(ids=prompts[1], max_tokens=5, top_logprobs=3)):
        [top] = delta.top
        assert len(top) == 3 and top[0] == (delta.ids[0], pytest.approx(delta.logprobs[0]))
        assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)
    assert all(delta.top == () for delta in engine.stream(Request(ids=prompts[1], max_tokens=2)))


def test_several_adapters_take_turns(tiny_model: Path, adapter: Path, tmp_path: Path, prompts: list[list[int]]) -> None:
    other = tmp_path / "v1.2 of another"  # a name that PEFT cannot have
    torch.manual_seed(5)
    config = LoraConfig(r=2, lora_alpha=9, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(other)
    both = chat_engine(tiny_model, adapters={"a": adapter, str(other): other})
    alone = {"a": chat_engine(tiny_model, adapter=adapter), str(other): chat_engine(tiny_model, adapter=other)}
    wanted = {name: run(engine, Request(ids=prompts[1], max_tokens=12))[1] for name, engine in alone.items()}
    wanted["base"] = run(chat_engine(tiny_model), Request(ids=prompts[1], max_tokens=12))[1]
    assert len(set(map(tuple, wanted.values()))) == 3
    streams = {name: both.stream(Request(ids=prompts[1], max_tokens=12, adapter=name)) for name in wanted}
    got: dict[str, list[int]] = {name: [] for name in wanted}
    for _ in range(12):  # one token of each in turn
        for name, stream in streams.items():
            got[name] += [id for delta in itertools.islice(stream, 1) for id in delta.ids]
    assert got == wanted
    assert run(both, Request(ids=prompts[1], max_tokens=12))[1] == wanted["a"], "without a name: the first"
