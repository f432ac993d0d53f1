"""A file that is written once: of several that try, one does. Locks and tables of more than one writer stand on it.

Local folders and NFS have link(2), and S3 has `If-None-Match` where boto3 is installed (pyarrow cannot send it): nobody
is told True beside another. Elsewhere (gs://, S3 without boto3, stores that know no condition) a writer looks, writes,
waits `SETTLE_S` and reads back: two are told True where one takes longer than that from its look to its write.
"""

import os
import time
import uuid
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from raylora.cluster.storage.filesystem import Location, parts

SETTLE_S = 3.0


def create_if_absent(location: Location, content: bytes) -> bool:
    """Write a file, with the folders around it, only where none is; whether that was so.

    An answer of S3's that is lost on its way makes False of True: content that only this writer has tells whose it is.

    Raises:
        OSError: storage fails.
    """
    location.parent.make_folder()
    if location.is_local:
        return _link(Path(location.path), content)
    if location.exists():
        return False
    if location.filesystem.type_name == "s3" and find_spec("boto3"):
        done = _put_on_s3(location, content)
        if done is not None:
            return done
    return _write_and_look(location, content)


def _link(path: Path, content: bytes) -> bool:
    """Whole from the first moment, which a file opened with O_EXCL is not."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    part.write_bytes(content)
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # a filesystem without hard links
        return _open_new(path, content)
    finally:
        part.unlink()
    return True


def _open_new(path: Path, content: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _put_on_s3(location: Location, content: bytes) -> bool | None:
    """None where the store takes no condition."""
    from boto3.session import Session
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    options = dict(parse_qsl(parts(location.address)[2]))
    endpoint = options.get("endpoint_override")
    if endpoint and "://" not in endpoint:
        endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
    region = options.get("region") or getattr(location.filesystem, "region", None)
    bucket, _, key = location.path.partition("/")
    try:
        client: Any = Session().client("s3", region_name=region, endpoint_url=endpoint)
        client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status in (409, 412):  # another writer was there at the same moment, or before
            return False
        if status == 501:
            return None
        raise OSError(str(error)) from None
    except ParamValidationError:  # a boto3 of before August 2024
        return None
    except BotoCoreError as error:
        raise OSError(str(error)) from None
    return True


def _write_and_look(location: Location, content: bytes) -> bool:
    with location.filesystem.open_output_stream(location.path, compression=None) as file:
        file.write(content)
    time.sleep(SETTLE_S)
    with suppress(FileNotFoundError), location.open() as file:
        return file.read() == content
    return False
