"""Files of buckets and other file systems, by their addresses: fsspec's, and for S3 that of pyarrow (extra `buckets`).

s3fs would be fsspec's own for S3, but its botocore and fsspec are older than those of the other extras.
"""

import os
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from manymask.errors import InputError
from manymask.extras import require

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

S3 = ("s3://", "s3a://")


def is_bucket(text: str) -> bool:
    """Whether an input or output names a place in S3."""
    return text.startswith(S3)


def open_system(address: str) -> "tuple[AbstractFileSystem, str]":
    """The file system of an address, and the path in it.

    For S3 the standard variables decide: AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3) for servers other than Amazon's,
    AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what `~/.aws` and the machine's role say.

    Raises:
        InputError: the bucket is not there, or the address names none.
    """
    require("buckets", "a bucket", "fsspec", "pyarrow")
    import fsspec

    if not is_bucket(address):
        system, path = fsspec.url_to_fs(address)
        return system, str(path)
    path = address.partition("://")[2].strip("/")
    bucket = path.partition("/")[0]
    if not bucket:
        raise InputError(f"{address} names no bucket: s3://BUCKET/FOLDER")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    known = endpoint or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return _s3(endpoint, None if known else _region(bucket)), path


@cache
def _s3(endpoint: str | None, region: str | None) -> Any:
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import S3FileSystem

    return ArrowFSWrapper(S3FileSystem(endpoint_override=endpoint, region=region), skip_instance_cache=True)


@cache
def _region(bucket: str) -> str:
    from pyarrow.fs import resolve_s3_region

    try:
        return str(resolve_s3_region(bucket))
    except OSError as error:
        raise InputError(f"s3://{bucket}: {why(error)}") from None


def files_below(system: "AbstractFileSystem", path: str) -> dict[str, int]:
    """The paths of all files at and below a path, with their bytes, in order.

    Raises:
        OSError: the place cannot be listed.
    """
    from fsspec.implementations.arrow import ArrowFSWrapper

    if not isinstance(system, ArrowFSWrapper):
        return {name: info.get("size", 0) for name, info in sorted(system.find(path, detail=True).items())}
    from pyarrow.fs import FileSelector, FileType

    itself = system.fs.get_file_info([path])
    below = system.fs.get_file_info(FileSelector(path, allow_not_found=True, recursive=True))  # 1,000 names a request
    return {each.path: each.size for each in sorted([*itself, *below], key=_path) if each.type == FileType.File}


def _path(info: Any) -> str:
    return str(info.path)


def why(error: OSError) -> str:
    """What an error of a file system says, in one line."""
    return re.sub(r"\s+", " ", error.strerror or str(error)).strip()[:300]
