"""Files on the web (http://, https://): each is fetched once per node, into a cache there.

Through urllib: fsspec would ask for ranges, which many servers refuse, and for a parquet file's end first; a file that
lies on the node's disk can be cut, read twice and compared with what the driver saw.
"""

import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from raylora.errors import DataError
from raylora.records import Say
from raylora.version import __version__

TIMEOUT_S = 60.0  # without a byte
PIECE = 2**20
KEPT_S = 30 * 24 * 3600  # a copy that no job has read for so long is removed by the next that is fetched
QUOTED_AS_IS = "%/:=&?~#+!$,;'@()*[]"
FAULTS = (urllib.error.URLError, HTTPException, OSError, ValueError)


def is_web(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def fetch(addresses: str | Sequence[str] | None, say: Say) -> None:
    """Fetch those of these addresses that are on the web, unless this node has them as they are there now.

    Raises:
        DataError: one cannot be fetched.
    """
    for address in [addresses] if isinstance(addresses, str) else addresses or ():
        if is_web(address):
            _fetch(address, say)


def size_of(address: str) -> int:
    """In bytes, of the copy on this node, fetched where there is none."""
    return os.path.getsize(local_copy(address))


def local_copy(address: str) -> str:
    """The path of this node's copy of a file, which is fetched where there is none.

    Raises:
        DataError: it cannot be fetched.
    """
    if not _copy(address).exists():
        _fetch(address, say=lambda line: None, anew=False)
    os.utime(_copy(address))  # it is in use
    return str(_copy(address))


def _copy(address: str) -> Path:
    folder = Path(tempfile.gettempdir()) / f"raylora-{os.getuid()}" / "web"
    return folder / hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()


def _fetch(address: str, say: Say, anew: bool = True) -> None:
    copy = _copy(address)
    with _alone(copy):
        if copy.exists() and not anew:  # another process has fetched it meanwhile
            return
        known = _seen(copy)
        url = urllib.parse.quote(address, QUOTED_AS_IS)
        try:
            request = urllib.request.Request(url, headers={"User-Agent": f"raylora/{__version__}", **known})
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                _save(answer, copy, address, say)
        except FAULTS as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 304:
                return
            reason = getattr(error, "reason", None) or error
            code = f"HTTP {error.code}, " if isinstance(error, urllib.error.HTTPError) else ""
            raise DataError(f"{address} cannot be fetched: {code}{reason}. Is the address right?") from None


def _save(answer: Any, copy: Path, address: str, say: Say) -> None:
    """Raises:
    OSError: it ended before its end, or the disk is full.
    """
    told = answer.headers.get("Content-Length")
    say(f"fetching   {address} ({_megabytes(int(told)) if told else 'of unknown size'})")
    part = copy.with_suffix(".part")
    with part.open("wb") as file:
        shutil.copyfileobj(answer, file, PIECE)
    size = part.stat().st_size
    if told and size != int(told):
        raise OSError(f"it ended after {size} of {told} bytes")
    marks = {"If-None-Match": answer.headers.get("ETag"), "If-Modified-Since": answer.headers.get("Last-Modified")}
    part.replace(copy)
    _drop_old(copy.parent)
    kept = {name: value for name, value in marks.items() if value}
    copy.with_suffix(".json").write_text(json.dumps({"address": address, "size": size, "marks": kept}))


def _drop_old(folder: Path) -> None:
    """Locks stay: one of nothing, another may wait for."""
    oldest = time.time() - KEPT_S
    for path in folder.iterdir():
        with suppress(OSError):  # another process removed it, or just put it there
            if path.suffix in ("", ".part") and path.stat().st_mtime < oldest:
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink()


def _seen(copy: Path) -> dict[str, str]:
    """What the server said of the copy that is here, to be asked whether it still holds."""
    try:
        kept = json.loads(copy.with_suffix(".json").read_text())
        return kept["marks"] if kept["size"] == copy.stat().st_size else {}
    except (OSError, ValueError, KeyError):
        return {}


@contextmanager
def _alone(copy: Path) -> Generator[None]:
    """One process of a node fetches a file, others wait for it.

    Raises:
        DataError: the folder of copies is another user's, who could put other rows there.
    """
    import fcntl  # not on Windows

    for folder in (copy.parent.parent, copy.parent):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
            raise DataError(f"{folder} is not this user's folder. Remove it, or set TMPDIR to a folder of your own.")
    with copy.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
