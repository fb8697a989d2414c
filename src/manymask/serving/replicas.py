"""`manymask serve --replicas N`: as many servers behind one address, on the machines of a Ray cluster (extra `ray`).

Ray Serve's proxies give each request to one replica: a whole server with its own line, files and models. A visit stays with
one replica, which holds its images: the header `X-Client` decides, and where there is none the visitor's address.
"""

import asyncio
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from filelock import FileLock, Timeout
from ray import serve

from manymask.errors import ConfigError
from manymask.hub.catalogue import find_model
from manymask.hub.model_folder import read_files, write_files
from manymask.serving.guard import CLIENT
from manymask.serving.monitoring import merged
from manymask.serving.request_queue import LAST
from manymask.serving.server import DRAIN, application, end_on_signals, open_site, taken
from manymask.serving.service import Limits

NAME = "manymask"
PATIENCE = 5.0  # seconds in which replicas tell their metrics
MOST_REQUESTS = 1000  # of one replica at a time: each open page holds several
ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
# what the proxies read; they inherit it from the controller
PROXY = {
    "RAY_SERVE_SESSION_ID_HEADER_KEY": CLIENT.decode(),
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "manymask.serving.guard:proxy_middleware",
}


@dataclass(frozen=True)
class Service:
    """What every replica needs.

    models: the files of each model folder by their names in it, by the name of the model: other machines need not have them.
    hosts: names that the page is served under. cores: threads. grace: seconds that a drawing may take after the end was
    asked for.
    """

    models: Mapping[str, Mapping[str, bytes]]
    limits: Limits
    hosts: Sequence[str]
    cores: int
    grace: float


class OwnFolder:
    """A new folder for the visitors' files of one replica. Those of replicas that were killed are removed."""

    def __init__(self) -> None:
        place = Path(tempfile.gettempdir()).resolve()
        for lock in place.glob("manymask-replica-*.lock"):
            with suppress(Timeout, OSError), FileLock(lock, timeout=0):  # nobody holds it any more
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink()
        self.path = place / f"manymask-replica-{uuid.uuid4().hex}"
        self._lock = FileLock(f"{self.path}.lock")
        self._lock.acquire()
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        """Removes it, with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


class Replica:
    """One server of several.

    service: an object reference to a `Service`.
    """

    def __init__(self, service: Any) -> None:
        self.service: Service = ray.get(service[0])
        torch.set_num_threads(self.service.cores)
        self.folder = OwnFolder()
        with tempfile.TemporaryDirectory(prefix="manymask-") as place:
            models = [write_files(files, Path(place) / name) for name, files in self.service.models.items()]
            self.site = open_site(models, self.service.limits, self.folder.path)

    def __serve_build_asgi_app__(self) -> Any:
        return application(self.site, self.service.hosts, self._all_metrics)

    async def _all_metrics(self) -> str:
        """Of all replicas that answer in time."""
        handle = serve.get_deployment_handle(NAME, NAME)
        told = await handle.broadcast("metrics").results_async(timeout_s=PATIENCE, return_exceptions=True)
        return merged(dict(each for each in told if not isinstance(each, BaseException)))

    async def metrics(self) -> tuple[str, str]:
        """The name of this replica and its numbers."""
        return serve.get_replica_context().replica_id.unique_id, self.site.monitor.metrics()

    async def check_health(self) -> None:
        """Raises if a drawing does not end: Ray Serve then starts another replica in place of this one."""
        status, text = self.site.monitor.health()
        if status != 200 and not self.site.sessions.line.closed:
            raise RuntimeError(text)

    async def close(self) -> bool:
        """Lets the drawing in progress finish and its answer go out; whether it ended in time."""
        ended = await asyncio.to_thread(self.site.sessions.line.close, self.service.grace)
        await asyncio.to_thread(self.site.monitor.drain, DRAIN)
        return ended

    def __del__(self) -> None:
        self.folder.remove()


def serve_replicas(
    models: Sequence[Path | str],
    replicas: int,
    host: str,
    port: int,
    limits: Limits,
    hosts: Sequence[str] = (),
    grace: float = 20,
    cores: int = 1,
) -> None:
    """Serves until interrupted, on the cluster that `RAY_ADDRESS` names or on this machine; see `server.serve`.

    replicas: how many servers. cores: of each; on a cluster with GPUs each has a GPU. `ConfigError` if there is no room for
    them, or the place is taken.
    """
    from manymask.inference.cluster import join_cluster, room_for_actors

    end_on_signals(lambda *_: sys.exit(0))
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise taken(host, port) from None
    try:
        os.environ.setdefault("RAY_worker_niceness", "0")
        join_cluster()
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        room, needed = room_for_actors(cores)
        if replicas > room:
            raise ConfigError(f"the cluster has room for {room} replica(s), not for {replicas}")
        folders = {folder.resolve().name: folder for folder in map(find_model, models)}
        files = {name: read_files(folder) for name, folder in folders.items()}
        service = ray.put(
            Service(files, limits, [host, *hosts], cores, grace)
        )  # held here, where it outlives the other machines
        handle = _run(service, replicas, needed, grace, host, port)
        ended = threading.Event()
        end_on_signals(lambda *_: ended.set())
        print(
            f"manymask: http://{host}:{port} ({', '.join(folders)}; {replicas} replicas); end with Ctrl+C", flush=True
        )
        ended.wait()
        end_on_signals(lambda *_: os._exit(0))
        with suppress(Exception):  # replicas that are gone have nothing to finish
            handle.broadcast("close").results(timeout_s=grace + LAST + DRAIN + PATIENCE, return_exceptions=True)
    finally:
        with suppress(Exception):
            serve.shutdown()
        ray.shutdown()


def _run(service: Any, replicas: int, needed: Mapping[str, float], grace: float, host: str, port: int) -> Any:
    """Starts the proxies and the replicas, and waits until they answer; returns a handle of the replicas."""
    quiet = {"log_level": "ERROR", "enable_access_log": False}  # addresses are those of visitors
    serve.start(
        proxy_location="EveryNode",
        http_options={"host": host, "port": port},
        logging_config=quiet,
        controller_options={"runtime_env": {"env_vars": PROXY}},
    )
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        num_replicas=replicas,
        ray_actor_options=dict(needed),
        max_ongoing_requests=MOST_REQUESTS,
        request_router_config={"request_router_class": ROUTER},
        graceful_shutdown_timeout_s=grace + DRAIN,
        logging_config=quiet,
    )
    return serve.run(deployment.bind([service]), name=NAME, route_prefix="/", logging_config=quiet)
