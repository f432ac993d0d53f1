"""A run's folder, local or on object storage (s3://, gs://), through one door."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.fs

from raylora.cluster.storage.address import inside, is_remote
from raylora.config import Job
from raylora.errors import ConfigError

FINISHED = "metrics.json"


class Storage(NamedTuple):
    """`path`: absolute or an address; `root`: the same within the filesystem."""

    path: str
    filesystem: pyarrow.fs.FileSystem
    root: str


def open_storage(job: Job) -> Storage:
    """The folder of the job's `storage_path`, there or not.

    Raises:
        ConfigError: no such kind of address, or its options cannot be.
    """
    path = job.storage_path
    if not is_remote(path):
        path = os.path.abspath(os.path.expanduser(path))
    try:
        return Storage(path, *pyarrow.fs.FileSystem.from_uri(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"`storage_path` {job.storage_path} cannot be used: {error}") from None


class RunFolder:
    """`<storage_path>/<run_name>`. metrics.json is written last: a folder that has it is a finished run."""

    def __init__(self, job: Job) -> None:
        assert job.run_name, "jobfile.name_run names the run before anything is written"
        self.storage_path, self.filesystem, self.root = open_storage(job)
        self.name = job.run_name
        self.path = f"{self.root.rstrip('/')}/{self.name}"
        self.uri = inside(self.storage_path, self.name)

    def absolute(self, job: Job) -> Job:
        """The job with this folder's `storage_path`: a process elsewhere works in another directory."""
        return job.replace({"storage_path": self.storage_path})

    def inside(self, name: str) -> str:
        """The address of a folder in this one, as a `storage_path`."""
        return inside(self.uri, name)

    def has(self, name: str) -> bool:
        return self.filesystem.get_file_info(f"{self.path}/{name}").type != pyarrow.fs.FileType.NotFound

    def read_text(self, name: str) -> str:
        with self.filesystem.open_input_file(f"{self.path}/{name}") as file:
            return file.read().decode("utf-8")

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole: a reader sees the old content or the new, never a part."""
        try:
            self.filesystem.create_dir(self.path, recursive=True)
            with self.filesystem.open_output_stream(f"{self.path}/{name}.part") as file:
                file.write(text.encode("utf-8"))
            self.filesystem.move(f"{self.path}/{name}.part", f"{self.path}/{name}")
        except OSError as error:
            raise ConfigError(f"`storage_path` {self.storage_path} cannot be written to: {error}") from None

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def upload(self, folder: Path, name: str) -> None:
        """Copy a local folder in; it appears under its name only when it is whole."""
        part, target = f"{self.path}/{name}.part", f"{self.path}/{name}"
        for old in (part, target):
            if self.filesystem.get_file_info(old).type != pyarrow.fs.FileType.NotFound:
                self.filesystem.delete_dir(old)
        self.filesystem.create_dir(part, recursive=True)
        pyarrow.fs.copy_files(str(folder), part, destination_filesystem=self.filesystem)
        if isinstance(self.filesystem, pyarrow.fs.LocalFileSystem):
            self.filesystem.move(part, target)
            return
        # object stores have no rename of a folder
        pyarrow.fs.copy_files(part, target, source_filesystem=self.filesystem, destination_filesystem=self.filesystem)
        self.filesystem.delete_dir(part)
