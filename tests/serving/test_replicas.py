"""`manymask serve --replicas 2`: two servers on a local Ray cluster behind one address, one of which is killed."""

import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import httpx
import pytest
from filelock import FileLock
from prometheus_client.parser import text_string_to_metric_families

from manymask.serving.guard import CLIENT, NamedVisitor
from manymask.serving.monitoring import merged
from tests.factories import run
from tests.page_server import serving
from tests.serving.test_monitoring import call, connected, image  # noqa: F401

pytest.importorskip("gradio_client", reason="the extra `app` is not installed")
pytest.importorskip("ray.serve", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.timeout(900)  # on a busy core most of it is the start of processes


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """At its end `serving` checks the status, and that no file of a visitor is left, of the killed replica neither."""
    short = tempfile.mkdtemp(prefix="mm-ray-")  # paths of sockets are short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", short)
        patch.delenv("RAY_ADDRESS", raising=False)
        flags = ("--replicas", "2", "--grace-seconds", "60", "--allow-host", "segment.example.org")
        with serving(tmp_path_factory.mktemp("replicas"), *flags) as found:
            yield found
    shutil.rmtree(short, ignore_errors=True)


def answered(server):
    """Drawings that each replica has answered."""
    told = httpx.get(f"{server.url}/metrics", timeout=30)
    assert told.status_code == 200
    return {
        sample.labels["replica"]: sample.value
        for family in text_string_to_metric_families(told.text)
        for sample in family.samples
        if sample.name == "manymask_drawings_ended_total" and sample.labels["outcome"] == "answered"
    }


def replicas_of(server):
    """The processes of the replicas of this server alone, which are the ones with its temporary folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            name, environment = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::ServeReplica") and f"TMPDIR={server.folder}\0".encode() in environment:
            found.append(int(place.name))
    return found


def areas(server, image, name):  # noqa: F811
    with connected(server.url, **{"X-Client": name}) as client:
        facts, archive = call(client, image)
    assert archive.endswith("lesion.zip")
    return facts["areas"]


def test_requests_are_spread_over_replicas_which_draw_the_same_masks(server, image):  # noqa: F811
    assert httpx.get(f"{server.url}/healthz").text == "ok"
    for host, status in (("evil.example", 421), ("segment.example.org", 200)):
        assert httpx.get(f"{server.url}/healthz", headers={"Host": host}).status_code == status
    found = [areas(server, image, f"client-{number}") for number in range(6)]
    assert all(each == found[0] for each in found)
    counts = answered(server)
    assert len(counts) == 2 and sum(counts.values()) == 6 and all(counts.values())


def test_program_without_a_name_stays_with_one_replica(server, image):  # noqa: F811
    """Else its upload would lie on one, and its request come to the other."""
    before = answered(server)
    with connected(server.url) as client:
        for _ in range(3):
            assert len(call(client, image)[0]["areas"]) == 2
    after = answered(server)
    assert sorted(after[name] - before[name] for name in before) == [0, 3]


def test_answers_still_come_if_a_replica_is_killed_and_another_takes_its_place(server, image):  # noqa: F811
    whole, before = areas(server, image, "client-0"), set(answered(server))
    killed, _ = replicas_of(server)
    os.kill(killed, signal.SIGKILL)
    assert [areas(server, image, f"client-{number}") for number in range(4)] == [whole] * 4
    end = time.monotonic() + 300
    while len(after := set(answered(server))) < 2 or killed in replicas_of(server):
        assert time.monotonic() < end, "no replica took the place of the killed one"
        time.sleep(1)
    assert len(after & before) == 1 and len(after - before) == 1
    assert len([lock for lock in server.folder.glob("manymask-replica-*.lock") if held(lock)]) == 2
    assert len([path for path in server.folder.glob("manymask-replica-*") if path.is_dir()]) == 2


def held(lock):
    try:
        with FileLock(lock, timeout=0):
            return False
    except TimeoutError:
        return True


def test_metrics_of_replicas_are_told_apart():
    one = '# HELP waits Why.\n# TYPE waits counter\nwaits_total{a="b"} 2.0\n'
    told = merged({"x": one, "y": one.replace("2.0", "3.0")})
    assert 'waits_total{a="b",replica="x"} 2.0\n' in told and 'waits_total{a="b",replica="y"} 3.0\n' in told
    assert told.count("# TYPE waits_total counter") == 1


@pytest.mark.parametrize(("given", "expected"), [((), b"10.0.0.9"), (((CLIENT, b"7"),), b"7")])
def test_visitor_without_a_name_is_named_by_the_address(given, expected):
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope["headers"])

    scope = {"type": "http", "client": ("10.0.0.9", 4000), "headers": [(b"host", b"x"), *given]}
    coroutine = NamedVisitor(app)(scope, None, None)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert seen == {b"host": b"x", CLIENT: expected}


def test_taken_places_and_no_replicas_are_refused(monkeypatch, drawing_model, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ask = ("serve", "-m", drawing_model, "--port", other.getsockname()[1])
        assert run(monkeypatch, *ask, "--replicas", 2) == 2
        assert "it is taken, choose another --port" in capsys.readouterr().err
        assert run(monkeypatch, *ask, "--replicas", 0) == 2
        assert "--replicas must be at least 1" in capsys.readouterr().err
