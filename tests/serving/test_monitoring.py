"""Health, metrics and the end of `manymask serve`; several of them behind nginx, as `deploy/nginx.conf` sets it up."""

import shutil
import signal
import socket
import subprocess
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from manymask.data.datasets import phantom
from manymask.serving.monitoring import Monitor
from manymask.serving.request_queue import RequestQueue
from tests.page_server import serving

gradio_client = pytest.importorskip("gradio_client", reason="the extra `app` is not installed")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def image(tmp_path):
    Image.fromarray(phantom.draw(1).image[:, :, 0]).save(tmp_path / "lesion.png")
    return tmp_path / "lesion.png"


def numbers(server):
    """The metrics by name and labels."""
    told = httpx.get(f"{server.url}/metrics")
    assert told.status_code == 200 and told.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(told.text)
        for sample in family.samples
    }


def call(client, path, **wanted):
    asked = {"model": "whole", "samples": 2, "sampler": "", **wanted}
    return client.predict(paths=[gradio_client.handle_file(str(path))], **asked, api_name="/segment")


@contextmanager
def connected(url, **headers):
    client = gradio_client.Client(url, verbose=False, headers=headers, httpx_kwargs={"timeout": 60})
    try:
        yield client
    finally:
        client.close()


def test_metrics_count_drawings_refusals_and_responses(client, page_server, image):
    before = numbers(page_server)
    call(client, image)
    with pytest.raises(Exception, match="1 to 16 masks"):
        call(client, image, samples=99)
    after = numbers(page_server)

    def grown(*key):
        return after[key] - before.get(key, 0)

    assert grown("manymask_drawings_ended_total", "answered") == 1
    assert grown("manymask_drawings_ended_total", "failed") == 1
    assert grown("manymask_drawing_seconds_count") == grown("manymask_waiting_seconds_count") == 2
    assert 0 < grown("manymask_drawing_seconds_sum") < 60
    assert grown("manymask_http_responses_total", "200") >= 4 and after["manymask_drawings",] == 0
    assert after["manymask_files_bytes",] > 0 and after["process_resident_memory_bytes",] > 1e7


def test_health_is_told_to_those_who_may_ask(page_server):
    assert (httpx.get(f"{page_server.url}/healthz").status_code, numbers(page_server)["manymask_drawings",]) == (200, 0)
    assert httpx.get(f"{page_server.url}/metrics", headers={"Host": "evil.example"}).status_code == 421


def test_closing_and_stuck_servers_are_not_healthy(monkeypatch):
    line = RequestQueue(5, 5)
    monitor = Monitor(line, 300, lambda: 0)
    assert monitor.health() == (200, "ok")
    now = time.monotonic()
    with line.place("a", "x"):
        monkeypatch.setattr(time, "monotonic", lambda: now + 350)
        assert monitor.health() == (200, "ok")
        monkeypatch.setattr(time, "monotonic", lambda: now + 400)
        assert monitor.health() == (503, "a drawing has not ended for 400 seconds")
    assert monitor.health() == (200, "ok")
    assert line.close(0)
    assert monitor.health() == (503, "closing")


def test_refused_and_abandoned_drawings_are_counted():
    line = RequestQueue(5, 1)
    monitor = Monitor(line, 300, lambda: 0)

    def abandoned():
        with line.place("a", "x"):
            yield

    drawing = abandoned()
    next(drawing)
    with pytest.raises(Exception, match="in the queue, which is full for you"), line.place("b", "x"):
        pass
    drawing.close()
    told = monitor.metrics()
    assert 'drawings_ended_total{outcome="refused"} 1.0' in told and 'outcome="left"} 1.0' in told
    assert "manymask_drawing_seconds_count 1.0" in told


@pytest.fixture(scope="module")
def second(tmp_path_factory, page_server):
    """Another server; the last test of this file ends it."""
    with serving(tmp_path_factory.mktemp("second"), "--grace-seconds", "120") as server:
        yield server


def nginx_config(folder, listen, ports):
    """`deploy/nginx.conf` with other ports and folders."""
    text = (ROOT / "deploy/nginx.conf").read_text()
    changed = {"listen 8080": f"listen 127.0.0.1:{listen}"}
    changed |= {
        f"server 127.0.0.1:{old} ": f"server 127.0.0.1:{new} " for old, new in zip((7861, 7862), ports, strict=True)
    }
    for old, new in changed.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    folders = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {", f"http {{ access_log off; {folders}")
    return f"daemon off; pid {folder}/pid; error_log {folder}/errors;\n{text}"


@pytest.fixture
def proxy(page_server, second, tmp_path):
    """The address of nginx before both servers."""
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if nginx is None:
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "nginx.conf"
    config.write_text(nginx_config(tmp_path, port, (page_server.port, second.port)))
    command = [nginx, "-p", str(tmp_path), "-c", str(config)]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_proxy_spreads_clients_over_replicas(page_server, second, proxy, image):
    assert httpx.get(f"{proxy}/metrics").status_code == 404, "the numbers are not for visitors"
    assert httpx.get(f"{proxy}/healthz").text == "ok"
    before = [numbers(server)["manymask_drawings_ended_total", "answered"] for server in (page_server, second)]
    found = []
    for number in range(6):
        with connected(proxy, **{"X-Client": f"client-{number}"}) as client:
            found.append(call(client, image)[0]["areas"])
    after = [numbers(server)["manymask_drawings_ended_total", "answered"] for server in (page_server, second)]
    assert sum(after) - sum(before) == 6 and all(now > then for now, then in zip(after, before, strict=True))
    assert all(each == found[0] for each in found), "the replicas draw the same masks"


def test_server_that_is_stopped_finishes_its_drawing_while_the_proxy_goes_on(second, proxy, image):
    """Its health says at once that it closes; its answer and the ZIP still come; clients go to the other server."""
    with connected(second.url) as client, ThreadPoolExecutor(1) as pool:
        start = time.monotonic()
        call(client, image, samples=1, sampler="DDPM", steps=50)
        steps = min(1000, round(50 * 4 / (time.monotonic() - start)))
        job = pool.submit(call, client, image, samples=2, sampler="DDPM", steps=steps)
        while not numbers(second)["manymask_drawings",]:
            time.sleep(0.02)
        second.process.send_signal(signal.SIGTERM)
        health = 200
        while not job.done() and health == 200:
            health = httpx.get(f"{second.url}/healthz").status_code
        facts, archive = job.result(60)
    assert health == 503 and len(facts["areas"]) == 2
    with zipfile.ZipFile(archive) as file:
        assert "lesion/mask-02.png" in file.namelist()
    assert second.process.wait(60) == 0
    for number in range(6):
        with connected(proxy, **{"X-Client": f"client-{number}"}) as client:
            assert len(call(client, image)[0]["areas"]) == 2
