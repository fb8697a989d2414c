"""The examples in `deploy/` parse, and their commands are commands of this program."""

from pathlib import Path

import yaml

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
