"""A series in an archive, by DICOMweb (PS3.18): looked up by QIDO-RS, fetched by WADO-RS, its results stored by STOW-RS.

The address of a series is  https://HOST/dicom-web/studies/UID/series/UID. Who one is comes from the environment
(MANYMASK_DICOMWEB_USER and MANYMASK_DICOMWEB_PASSWORD, or MANYMASK_DICOMWEB_TOKEN) or from the address (USER:PASSWORD@),
and is never shown.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any
from urllib.parse import unquote, urlsplit

from manymask.errors import InputError, MissingExtraError
from manymask.io.dicom.derived import label_of
from manymask.io.dicom.series import series_of
from manymask.io.image import Failed, Picture
from manymask.io.window import Window

USER, PASSWORD, TOKEN = (f"MANYMASK_DICOMWEB_{name}" for name in ("USER", "PASSWORD", "TOKEN"))
INSTANCE_LIMIT = 2000
BYTE_LIMIT = 2 << 30
CONNECT_SECONDS, READ_SECONDS = 10, 120
_SERIES = re.compile(r"(?P<base>.*)/studies/(?P<study>[0-9.]{1,64})/series/(?P<series>[0-9.]{1,64})/?")
_SIZE = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated")


def is_address(text: str) -> bool:
    """Whether an input names an archive, not a file: whatever has a scheme, a mistyped one too. A path may look so, too:
    what exists is a file."""
    return re.match(r"[a-z][a-z0-9+.-]+:[/\\\\]", text, re.IGNORECASE) is not None and not os.path.exists(text)  # noqa: PTH110


@dataclass(frozen=True)
class ArchiveSeries:
    """A series in an archive: `base` is the DICOMweb root, without who one is; `numbers`: of its first and last slice that are
    read, None for all."""

    base: str
    study: str
    series: str
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    numbers: tuple[int, int] | None = None

    @property
    def file(self) -> str | None:
        """None: DICOM is known by its UIDs."""
        return None

    def count(self) -> int | None:
        """None: not known before the series is fetched."""
        return None

    def sizes(self) -> set[tuple[int, int]]:
        """None known before the series is fetched."""
        return set()

    def read(self, index: int, window: Window | None = None) -> Picture:
        """Image `index`; fetches the whole series."""
        found = next(islice(self.pictures(window), index, None), None)
        if found is None:
            raise InputError(f"the series has no image {index + 1}")
        return found

    def pictures(self, window: Window | None = None, failed: Failed | None = None) -> Iterator[Picture]:
        """Its images in the order of their position; fetches the whole series first."""
        listing = series_of(self.fetch())
        for problem in listing.problems:
            if failed is None:
                raise InputError(problem)
            failed(InputError(problem))
        for series in listing.series:
            some = series if self.numbers is None else series.between(*self.numbers)
            yield from some.pictures(window, failed)

    def between(self, first: int, last: int) -> "ArchiveSeries":
        """The images from number `first` to number `last`."""
        return replace(self, numbers=(first, last))

    def fetch(self) -> list[Any]:
        """The data sets (pydicom) of the series. Sizes are asked for before, and watched while they arrive.

        Raises `InputError`, in one line, for an archive that does not answer or refuses, and for a series that is not
        there, empty, or larger than INSTANCE_LIMIT objects or BYTE_LIMIT bytes.
        """
        with _told(self.base):
            client = self._client()
            listed = client.search_for_instances(self.study, self.series, fields=_SIZE, limit=INSTANCE_LIMIT + 1)
            if not listed:
                raise InputError(f"{self.base} has no such series, or it is empty; check the address", path=self.base)
            if len(listed) > INSTANCE_LIMIT:
                raise InputError(f"the series holds more than {INSTANCE_LIMIT} objects; fetch and segment a part of it")
            _check_bytes(sum(_declared_bytes(found) for found in listed))
            datasets, held = [], 0
            for dataset in client.iter_series(self.study, self.series, media_types=(("application/dicom", "*"),)):
                held += len(dataset.get("PixelData") or b"")
                _check_bytes(held)
                datasets.append(dataset)
        return datasets

    def store(self, datasets: Sequence[Any]) -> None:
        """Puts DICOM objects into the study, one a request; `InputError` if the archive refuses some, the others are stored."""
        refused = []
        with _told(self.base):
            client = self._client()
            client.set_chunk_size(BYTE_LIMIT)  # whole: not every archive takes chunks
            for dataset in datasets:
                answer = client.store_instances([dataset], study_instance_uid=self.study)
                if answer.get("FailedSOPSequence"):
                    refused.append(label_of(dataset).lower())
        if refused:
            raise InputError(f"{self.base} refused to store {', '.join(refused)}", path=self.base)

    def _client(self) -> Any:
        from dicomweb_client import DICOMwebClient
        from requests import Session
        from requests.auth import HTTPBasicAuth

        logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)  # it repeats what archives say
        session = Session()
        if self.credentials:
            session.auth = HTTPBasicAuth(*(part.encode() for part in self.credentials))
        elif os.environ.get(TOKEN):
            session.headers["Authorization"] = f"Bearer {os.environ[TOKEN]}"
        waits = (CONNECT_SECONDS, READ_SECONDS)
        client = DICOMwebClient(self.base, session, callback=_check_answer, permissive_uid=True, timeout=waits)
        client.set_http_retry_params(retry=False)  # else it tries five times, waiting ever longer, whatever went wrong
        return client


def archive_series(address: str) -> ArchiveSeries:
    """Parses the address of a series; raises `InputError` that shows the form expected, never the password."""
    try:
        parts = urlsplit(address)
        found, host, port = _SERIES.fullmatch(parts.path), parts.hostname, parts.port
    except ValueError:
        found, host, port = None, None, None
    if not found or not host or parts.scheme not in ("http", "https"):
        raise InputError("an archive is addressed by a series: https://HOST/dicom-web/studies/UID/series/UID")
    place = f"[{host}]" if ":" in host else host
    base = f"{parts.scheme}://{place}{f':{port}' if port else ''}{found['base']}"
    if parts.username is not None:
        credentials: tuple[str, str] | None = (unquote(parts.username), unquote(parts.password or ""))
    else:
        user = os.environ.get(USER)
        credentials = (user, os.environ.get(PASSWORD, "")) if user else None
    return ArchiveSeries(base, found["study"], found["series"], credentials)


def _declared_bytes(found: Any) -> int:
    """What an object takes, by its QIDO answer (DICOM JSON); 0 where the archive does not say."""
    from pydicom import Dataset

    said = Dataset.from_json(found)
    size = 1
    for name in _SIZE:
        size *= int(said.get(name) or (1 if name in ("NumberOfFrames", "SamplesPerPixel") else 0))
    return size // 8


def _check_bytes(count: int) -> None:
    if count > BYTE_LIMIT:
        raise InputError(f"the series holds more than {BYTE_LIMIT >> 30} GB; fetch and segment a part of it")


def _check_answer(response: Any, *_: Any, **__: Any) -> None:
    """Before a body is read."""
    _check_bytes(int(response.headers.get("Content-Length") or 0))


@contextmanager
def _told(base: str) -> Iterator[None]:
    """What can go wrong between here and an archive, in one line; answers are not quoted, they may name patients."""
    try:
        import dicomweb_client  # noqa: F401
        import requests
        from pydicom.errors import InvalidDicomError
    except ImportError:
        raise MissingExtraError(
            "DICOMweb needs the extra `dicom`: pip install 'manymask[dicom]'", extra="dicom", package="dicomweb-client"
        ) from None
    try:
        yield
    except requests.HTTPError as error:
        code = getattr(error.response, "status_code", 0)
        if code in (401, 403):
            raise InputError(
                f"{base} asks who you are or does not let you in ({code}); set {USER} and {PASSWORD}",
                path=base,
            ) from None
        if code == 404:
            raise InputError(f"{base} knows no such address or series (404); check the address", path=base) from None
        raise InputError(f"{base} answered with an error ({code})", path=base) from None
    except requests.exceptions.SSLError:
        raise InputError(
            f"{base}: its certificate is not trusted; REQUESTS_CA_BUNDLE names one's own authority",
            path=base,
        ) from None
    except requests.Timeout:
        raise InputError(f"{base} did not answer in time", path=base) from None
    except requests.RequestException as error:
        what = "cannot be reached" if isinstance(error, requests.ConnectionError) else "sent no usable answer"
        raise InputError(f"{base} {what}", path=base) from None
    except (ValueError, KeyError, AttributeError, TypeError, InvalidDicomError):
        raise InputError(f"{base} does not answer as a DICOMweb archive does; check the address", path=base) from None
