"""What can go wrong around a training: damaged checkpoints, a full disk, other settings, a loss that is no number.
Each is seen and said, and training goes on to the bits of a quiet one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ownchat.config import Config, load_config
from ownchat.errors import Interrupted, RunError
from ownchat.monitor.events import read_lines
from ownchat.train import checkpoint, loop
from ownchat.train.stage import refuse_unfinished, run

SETS = (
    "train.batch_tokens=700", "train.block_tokens=400", "model.dtype=float32", "train.epochs=3",
    "train.validate_every=4", "train.threads=1",
)  # fmt: skip
STOPPED_AT = 9


pytestmark = pytest.mark.usefixtures("speed_of_matrix_products")


def settings(*sets: str) -> Config:
    return load_config(sets=[*SETS, *sets])[0]


def train_until(inputs: dict[str, Path], output: Path, step: int, *sets: str) -> Path:
    """A training that SIGTERM ended at this step."""
    one_step, done = loop.train_step, []

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        done.append(1)
        if len(done) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match=f"saved at step {step} "):
        patch.setattr(loop, "train_step", interrupted)
        run(settings(*sets), inputs, output)
    return output


@pytest.fixture(scope="module")
def whole(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quiet training."""
    output = tmp_path_factory.mktemp("whole") / "5-train"
    run(settings(), inputs, output)
    return output


@pytest.fixture(scope="module")
def stopped(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that ended at step 9; the best checkpoint so far is that of step 8. Copy it before changing anything."""
    output = train_until(inputs, tmp_path_factory.mktemp("stopped") / "5-train", STOPPED_AT)
    newest = checkpoint.latest(saved(output))
    assert newest is not None and (newest[1].step, newest[1].best_step) == (STOPPED_AT, 8)
    return output


def saved(output: Path) -> Path:
    return output / "sft" / "checkpoints"


def same(a: Path, b: Path) -> bool:
    one, other = (load_file(output / "model" / "model.safetensors") for output in (a, b))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def events(output: Path, name: str) -> list[dict[str, Any]]:
    return [row for row in read_lines(output / "sft" / "events.jsonl") if row["event"] == name]


DAMAGES = {
    "half written": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "a bit flipped": lambda path: flip(path, path.stat().st_size // 2),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_a_checkpoint_counts(damage: str, stopped: Path, tmp_path: Path) -> None:
    newest = checkpoint.path_of(saved(stopped), STOPPED_AT)
    names = [str(path.relative_to(newest)) for path in newest.rglob("*") if path.is_file()]
    assert {"state.json", "state.safetensors", "adapter/adapter_model.safetensors"} <= set(names)
    for number, name in enumerate(names):
        copy = tmp_path / str(number)
        shutil.copytree(saved(stopped), copy)
        DAMAGES[damage](checkpoint.path_of(copy, STOPPED_AT) / name)
        told: list[tuple[str, str]] = []
        found = checkpoint.latest(copy, lambda path, why, told=told: told.append((path.name, why)))  # type: ignore[misc]
        assert found is not None and found[1].step == 8, name
        assert [path for path, _ in told] == ["step-000009"] and told[0][1].startswith(name), name


def test_no_bit_of_the_state_can_change(stopped: Path, tmp_path: Path) -> None:
    """Not even one that leaves valid JSON: a step's digit, a loss."""
    path = tmp_path / "step-000009"
    shutil.copytree(checkpoint.path_of(saved(stopped), STOPPED_AT), path)
    content = (path / "state.json").read_bytes()
    for position in range(len(content)):
        flip(path / "state.json", position)
        assert isinstance(checkpoint.read_state(path), str), content[max(0, position - 20) : position + 1]
        (path / "state.json").write_bytes(content)
    assert isinstance(checkpoint.read_state(path), checkpoint.State)


def test_the_one_before_is_used_and_it_is_said(
    inputs: dict[str, Path], whole: Path, stopped: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "5-train"
    shutil.copytree(stopped, output)
    flip(checkpoint.path_of(saved(output), STOPPED_AT) / "state.safetensors", -1)
    run(settings(), inputs, output)
    assert same(whole, output)
    assert "checkpoint of step 9 is not used: state.safetensors is damaged" in capfd.readouterr().err
    (told,) = events(output, "checkpoint_damaged")
    assert (told["step"], told["why"]) == (9, "state.safetensors is damaged")
    assert [row["step"] for row in events(output, "resumed")] == [8]


def test_a_damaged_best_is_made_again(inputs: dict[str, Path], whole: Path, stopped: Path, tmp_path: Path) -> None:
    """Going on from the newest would end with a result made of damaged weights."""
    output = tmp_path / "5-train"
    shutil.copytree(stopped, output)
    flip(checkpoint.path_of(saved(output), 8) / "adapter" / "adapter_model.safetensors", -1)
    run(settings(), inputs, output)
    assert same(whole, output)
    assert [row["step"] for row in events(output, "checkpoint_damaged")] == [9, 8]
    assert [row["step"] for row in events(output, "resumed")] == [4]


def test_nothing_whole_is_a_new_beginning(inputs: dict[str, Path], whole: Path, stopped: Path, tmp_path: Path) -> None:
    output = tmp_path / "5-train"
    shutil.copytree(stopped, output)
    for path in saved(output).iterdir():
        (path / "state.json").unlink()
    run(settings(), inputs, output)
    assert same(whole, output)
    assert len(events(output, "started")) == 2 and not events(output, "resumed")


# ------------------------------------------------------------------------------------------------------ full disk

TRAIN = """
import sys
from pathlib import Path
from ownchat.cli import _exit_codes
from ownchat.config import load_config
from ownchat.train.stage import refuse_unfinished, run
tokens, tokenizer, base, output, *sets = sys.argv[1:]
inputs = {"tokens": Path(tokens), "tokenizer": Path(tokenizer), "base": Path(base)}
with _exit_codes():
    run(load_config(sets=sets)[0], inputs, Path(output))
"""
LIMITED = """
import resource
from ownchat.train import checkpoint
write, done = checkpoint.save_file, []
def limited(*arguments, **keywords):  # from the second checkpoint on no file may have more than 100 kB
    done.append(1)
    if len(done) == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    write(*arguments, **keywords)
checkpoint.save_file = limited
"""
# A file system of 8 MB of which 900 kB are free: one checkpoint fits (540 kB), two do not.
ON_A_SMALL_DISK = """
set -e
disk=$1; kept=$2; shift 2
mount -t tmpfs -o size=8192k none "$disk"
head -c $((7292 * 1024)) /dev/zero > "$disk/ballast"
code=0; "$@" || code=$?
cp -r "$disk/5-train" "$kept/when-full"
rm "$disk/ballast"
"$@"
cp -r "$disk/5-train" "$kept/5-train"
exit $code
"""


def can_mount() -> bool:
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow  # two starts of the program
@pytest.mark.skipif(not can_mount(), reason="a file system cannot be mounted here (unshare -rm)")
def test_full_disk(inputs: dict[str, Path], whole: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    training = [sys.executable, "-c", TRAIN, *map(str, inputs.values()), str(tmp_path / "disk" / "5-train"), *SETS]
    script = ["sh", "-c", ON_A_SMALL_DISK, "sh", str(tmp_path / "disk"), str(tmp_path), *training]
    done = subprocess.run(["unshare", "-rm", *script], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "checkpoint of step 8 cannot be written" in done.stderr and "free some space" in done.stderr
    assert "Traceback" not in done.stderr
    left = saved(tmp_path / "when-full")
    assert [path.name for path in left.iterdir()] == ["step-000004"], "no half of another one"
    assert checkpoint.latest(left)[1].step == 4  # type: ignore[index]
    assert same(whole, tmp_path / "5-train"), "after space was freed"


def test_a_file_that_cannot_grow(inputs: dict[str, Path], whole: Path, tmp_path: Path) -> None:
    """The kernel refuses the second checkpoint; where nothing can be mounted, this stands for the full disk."""
    arguments = [*map(str, inputs.values()), str(tmp_path / "5-train"), *SETS]
    done = subprocess.run([sys.executable, "-c", LIMITED + TRAIN, *arguments], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "checkpoint of step 8 cannot be written" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in saved(tmp_path / "5-train").iterdir()] == ["step-000004"]
    run(settings(), inputs, tmp_path / "5-train")
    assert same(whole, tmp_path / "5-train")


# -------------------------------------------------------------------------------------------------- other settings


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.learning_rate=0.002", "train.learning_rate: None then, 0.002 now"),
        ("train.seed=3", "train.seed: 0 then, 3 now"),
        ("model.lora_rank=4", "model.lora_rank: 16 then, 4 now"),
        ("model.lora_variant=dora", "model.lora_variant: lora then, dora now"),
        ("tokenizer.max_tokens=64", "tokenizer.max_tokens: None then, 64 now"),
    ],
)
def test_other_settings_are_named(change: str, said: str, inputs: dict[str, Path], stopped: Path) -> None:
    before = sorted(path.name for path in saved(stopped).iterdir())
    with pytest.raises(RunError, match=said) as refused:
        run(settings(change), inputs, stopped)
    assert "--force" in refused.value.fix
    assert sorted(path.name for path in saved(stopped).iterdir()) == before, "nothing was touched"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.system=Be brief.", "data.system: None then, Be brief. now"),
        ("clean.near_duplicates=off", "clean.near_duplicates: True then, False now"),
    ],
)
def test_settings_that_made_the_data_are_named(change: str, said: str, stopped: Path) -> None:
    """What ``ownchat train`` asks before it reads any data again, when its request has changed."""
    with pytest.raises(RunError, match=said):
        refuse_unfinished(settings(change), stopped)
    with pytest.raises(RunError, match="other data, or another base model"):
        refuse_unfinished(settings("data.workers=7"), stopped)


@pytest.mark.parametrize("what", ["tokens", "base"])
def test_other_data_and_another_base_need_force(
    what: str, inputs: dict[str, Path], stopped: Path, tmp_path: Path
) -> None:
    other, output = tmp_path / "other", tmp_path / "5-train"
    shutil.copytree(inputs[what], other)
    shutil.copytree(stopped, output)
    if what == "tokens":
        flip(other / "train" / "weights.bin", -1)
    else:
        weights = load_file(other / "model.safetensors")
        weights["model.norm.weight"] *= 1.5
        save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match="other data, or another base model") as refused:
        run(settings(), inputs | {what: other}, output)
    assert "--force" in refused.value.fix
    report = run(settings(), inputs | {what: other}, output, force=True)
    assert report.details["steps"] == 12 and not events(output, "resumed"), "from nothing"


# ------------------------------------------------------------------------------------------- a loss that is no number


def test_a_loss_that_is_no_number_names_the_lines_and_keeps_what_was_good(
    inputs: dict[str, Path], whole: Path, tmp_path: Path
) -> None:
    """A weight goes bad in step 6, as faulty memory would do it; afterwards the same command goes on."""
    one_step, done, output = loop.train_step, [], tmp_path / "5-train"

    def poisoned(model: Any, *arguments: Any, **keywords: Any) -> Any:
        done.append(1)
        if len(done) == 6:
            with torch.no_grad():
                next(weight for weight in model.parameters() if weight.requires_grad)[0, 0] = float("nan")
        return one_step(model, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", poisoned)
        with pytest.raises(RunError, match=r"loss of step 6 is not a number; its batch holds .*faq.jsonl line \d+"):
            run(settings(), inputs, output)
    (told,) = events(output, "not_finite")
    assert told["step"] == 6 and len(told["records"]) == len(told["sources"]) > 5
    assert [path.name for path in saved(output).iterdir()] == ["step-000004"]
    state = checkpoint.Saved(checkpoint.path_of(saved(output), 4))
    assert all(torch.isfinite(state.read(name)).all() for name in state)
    run(settings(), inputs, output)
    assert same(whole, output)
