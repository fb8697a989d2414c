"""A real archive: Debian's Orthanc with its DICOMweb plugin, on loopback, with a password."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicomweb_client import DICOMwebClient
from requests import RequestException, Session

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ORTHANC = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Archive:
    """A running Orthanc: its DICOMweb root, its one user, and a client of that user."""

    root: str
    user: str
    password: str
    client: DICOMwebClient


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def orthanc(folder: Path) -> Iterator[Archive]:
    """Starts an empty archive that keeps its files in `folder`, and ends it."""
    port, user, password = free_port(), "rater", secrets.token_urlsafe(12)
    config = {
        "Name": "manymask-test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "HttpPort": port, "HttpServerEnabled": True, "DicomServerEnabled": False, "DicomPort": free_port(),
        "RemoteAccessAllowed": False, "AuthenticationEnabled": True, "RegisteredUsers": {user: password},
        "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(config))
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=file, stderr=file)
    session = Session()
    session.auth, session.trust_env = (user, password), False
    root = f"http://127.0.0.1:{port}/dicom-web"
    client = DICOMwebClient(root, session)
    try:
        _wait(client, process, log)
        yield Archive(root, user, password, client)
    finally:
        process.terminate()
        process.wait(20)


def _wait(client: DICOMwebClient, process: subprocess.Popen, log: Path) -> None:
    for _ in range(150):
        try:
            client.search_for_studies()
            return
        except RequestException:
            assert process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])
