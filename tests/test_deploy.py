"""The examples in `deploy/` parse, and their commands are commands of this program."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import yaml
from torch.distributed.run import get_args_parser

DEPLOY = Path(__file__).parents[1] / "deploy"


def manifests(name):
    """The documents of a file by kind."""
    return {found["kind"]: found for found in yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8"))}


def only_container(workload):
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return container


def test_replicas_are_probed_where_they_answer_and_have_time_to_finish(parse):
    found = manifests("kubernetes-serve.yaml")
    deployment, service = found["Deployment"], found["Service"]
    pod, container = deployment["spec"]["template"], only_container(deployment)
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == pod["metadata"]["labels"]
    (port,) = (each["containerPort"] for each in container["ports"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": port}
    assert service["spec"]["ports"][0]["targetPort"] == port and service["spec"]["sessionAffinity"] == "ClientIP"
    arguments = container["args"]
    assert not parse(arguments)
    grace = int(arguments[arguments.index("--grace-seconds") + 1])
    assert pod["spec"]["terminationGracePeriodSeconds"] > grace + 20


def launched(arguments):
    """The launcher's own settings, and the arguments of `manymask`."""
    found = get_args_parser().parse_args(arguments)
    assert found.module and found.training_script == "manymask"
    return found, found.training_script_args


def test_training_pods_know_their_rank_and_their_master(parse):
    found = manifests("kubernetes-train.yaml")
    job, service = found["Job"], found["Service"]
    spec, name = job["spec"], job["metadata"]["name"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    assert service["spec"] == {"clusterIP": "None", "selector": {"job-name": name}}
    assert service["metadata"]["name"] == spec["template"]["spec"]["subdomain"]
    container = only_container(job)
    assert container["command"] == ["python", "-m", "torch.distributed.run"]
    rank = "--node-rank=$(JOB_COMPLETION_INDEX)"
    assert rank in container["args"]
    launcher, arguments = launched([each.replace(rank, "--node-rank=1") for each in container["args"]])
    assert launcher.nnodes == str(spec["completions"])
    assert launcher.master_addr == f"{name}-0.{service['metadata']['name']}"
    assert int(launcher.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert not parse(arguments)


def test_slurm_script_launches_what_it_asks_for(parse):
    path = DEPLOY / "slurm-train.sbatch"
    script = path.read_text(encoding="utf-8")
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", script, re.MULTILINE))
    assert len(asked) == script.count("\n#SBATCH")
    (command,) = re.findall(r"exec python -m torch\.distributed\.run (.+?)' \"\$MASTER\"", script, re.DOTALL)
    known = {"$SLURM_NNODES": asked["nodes"], "$SLURM_NODEID": "1", "$0": "node-0"}
    words = shlex.split(command.replace("\\\n", " "))
    launcher, arguments = launched([known.get(word, word) for word in words])
    assert (launcher.nproc_per_node, asked["ntasks-per-node"]) == (asked["gpus-per-node"], "1")
    assert not parse(arguments)
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", "--shell=bash", path]).returncode == 0
