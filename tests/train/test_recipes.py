"""The files for Slurm and Kubernetes: syntax, what the APIs require, and that they call what there is."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import get_args_parser
from typer.testing import CliRunner

from ownchat.cli import app

RECIPES = Path(__file__).parent.parent.parent / "recipes"


def documents(name: str) -> dict[str, dict[str, Any]]:
    """The objects in a file, by kind."""
    found = list(yaml.safe_load_all((RECIPES / "kubernetes" / name).read_text(encoding="utf-8")))
    for each in found:
        assert each["apiVersion"] and each["metadata"]["name"] and "spec" in each
    return {each["kind"]: each for each in found}


def check_command(words: list[str]) -> None:
    """torchrun understands its options, and ownchat's train the rest."""
    assert words[0] == "torchrun"
    launch = get_args_parser().parse_args(words[1:])
    assert launch.module and launch.training_script == "ownchat"
    command, *options = launch.training_script_args
    assert command == "train"
    offered = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).stdout
    for option in options:
        if option.startswith("--"):
            assert option.split("=")[0] in offered, option


def check_pod(spec: dict[str, Any], container: str) -> None:
    """Fields that Kubernetes requires of a pod, mounts that have their volumes, and a home that all pods share."""
    assert [each["name"] for each in spec["containers"]] == [container]
    volumes = {each["name"]: each for each in spec["volumes"]}
    for each in spec["containers"]:
        assert each["image"]
        mounts = {mount["name"]: mount["mountPath"] for mount in each["volumeMounts"]}
        assert mounts.keys() <= volumes.keys()
        home = next(variable["value"] for variable in each["env"] if variable["name"] == "OWNCHAT_HOME")
        shared = [name for name, path in mounts.items() if home.startswith(path)]
        assert "persistentVolumeClaim" in volumes[shared[0]]
    assert spec["terminationGracePeriodSeconds"] >= 180


def test_a_pytorchjob() -> None:
    found = documents("pytorchjob.yaml")
    assert found["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    job = found["PyTorchJob"]
    assert job["apiVersion"] == "kubeflow.org/v1"
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert set(replicas) <= {"Master", "Worker"}
    elastic = job["spec"]["elasticPolicy"]
    assert elastic["minReplicas"] <= replicas["Worker"]["replicas"] <= elastic["maxReplicas"]
    assert replicas["Worker"]["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
    pod = replicas["Worker"]["template"]["spec"]
    check_pod(pod, "pytorch")  # the name that the operator requires
    claim = next(each for each in pod["volumes"] if "persistentVolumeClaim" in each)["persistentVolumeClaim"]
    assert claim["claimName"] == found["PersistentVolumeClaim"]["metadata"]["name"]
    check_command(pod["containers"][0]["command"])


def test_a_trainjob() -> None:
    found = documents("trainjob.yaml")
    job, runtime = found["TrainJob"], found["TrainingRuntime"]
    assert job["apiVersion"] == runtime["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
    assert job["spec"]["runtimeRef"]["kind"] == runtime["kind"]
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert "torch" in runtime["spec"]["mlPolicy"]
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["name"] == "node"
    step = replicated["template"]["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"]
    assert step == "trainer"
    check_pod(replicated["template"]["spec"]["template"]["spec"], "node")
    trainer = job["spec"]["trainer"]
    check_command([*trainer["command"], *trainer["args"]])


def test_the_slurm_script(tmp_path: Path) -> None:
    """Its syntax, and what it starts: srun and scontrol are programs here that show their arguments."""
    script = RECIPES / "slurm" / "train.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(script)], check=True)
    for name, body in {"srun": 'shift; printf "%s\\n" "$@"', "scontrol": "printf 'node7\\nnode8\\n'"}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "5",
        "SLURM_GPUS_ON_NODE": "8",
    }
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "OWNCHAT_HOME": "/shared", **slurm}
    run = ["bash", str(script), "/shared/inbox", "--name", "support"]
    started = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    check_command(started)
    launch = get_args_parser().parse_args(started[1:])
    assert (launch.nnodes, launch.nproc_per_node, launch.rdzv_endpoint) == ("2", "8", "node7:29400")
    assert launch.training_script_args == ["train", "/shared/inbox", "--name", "support"]
    without = subprocess.run(run, env={"PATH": environment["PATH"], **slurm}, capture_output=True, text=True)
    assert without.returncode and "OWNCHAT_HOME" in without.stderr


def test_the_commands_of_the_page() -> None:
    page = (RECIPES.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```bash\n(.*?)^```", page, flags=re.M | re.S)
    commands = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    assert len(commands) == 2
    for words in commands:
        check_command(words)


@pytest.mark.parametrize("folder", ["slurm", "kubernetes"])
def test_every_file_is_looked_at(folder: str) -> None:
    assert {file.name for file in (RECIPES / folder).iterdir()} <= {"train.sbatch", "pytorchjob.yaml", "trainjob.yaml"}
