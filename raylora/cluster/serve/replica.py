"""A Serve replica: one base model, the adapters it holds, and its HTTP face."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle

from raylora.cluster.serve import adapter_folders as folders
from raylora.cluster.serve.adapter_store import AdapterStore
from raylora.cluster.serve.http import build_app
from raylora.cluster.serve.keys import HashedKey
from raylora.cluster.serve.meters import Meters
from raylora.cluster.serve.scaling import TOKENS
from raylora.cluster.serve.service import Service
from raylora.cluster.serve.table import Change, Entry, Table
from raylora.cluster.storage.filesystem import inside
from raylora.config import Job, ModelSection, parse
from raylora.config.serve import LOOPBACK
from raylora.errors import NotReadyError, RayLoraError
from raylora.model.lora.manifest import read_manifest, served_base
from raylora.model.serving.base import ServedBase, resolve_dtype
from raylora.model.serving.engine import Engine, Limits
from raylora.model.threads import run_in_thread

logger = logging.getLogger(__name__)

RETRY_S = 0.5
SWITCH_S = 0.0005  # the engine asks for Python's lock at every operation; Python's 5 ms looked slower at 32 clients


class RegistryClient:
    """`service.Changes` through Serve: the registry's own errors, not Ray's around them."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self.handle: Any = handle

    async def sync(self, replica: str, revision: int, meters: str) -> Table | list[Change]:
        return await self._call(self.handle.sync.remote, replica, revision, meters)

    async def put(self, name: str, path: str, digest: str, traffic: float) -> Entry:
        return await self._call(self.handle.put.remote, name, path, digest, traffic)

    async def drop(self, name: str) -> None:
        await self._call(self.handle.drop.remote, name)

    async def rollback(self, name: str) -> Entry:
        return await self._call(self.handle.rollback.remote, name)

    async def promote(self, name: str) -> None:
        await self._call(self.handle.promote.remote, name)

    async def meters(self) -> dict[str, str]:
        return await self._call(self.handle.meters.remote)

    async def _call(self, remote: Callable[..., Awaitable[Any]], *values: Any) -> Any:
        try:
            return await remote(*values)
        except RayTaskError as error:
            if isinstance(error.cause, RayLoraError):
                raise error.cause from None
            raise NotReadyError(f"the adapter table does not answer: {error.cause}") from None
        except RayLoraError:
            raise
        except Exception as error:  # noqa: BLE001 - a restart of the registry has many faces, and ends
            raise NotReadyError(f"the adapter table does not answer: {type(error).__name__}") from None


class Endpoint:
    """The deployment class. `tree` is the job, `threads` torch's, None = its default."""

    def __init__(self, tree: dict[str, Any], known: list[HashedKey], threads: int | None, registry: Any) -> None:
        _log_access()
        sys.setswitchinterval(SWITCH_S)
        self.job, self.known = parse(tree), known
        settings = self.job.serve
        use_gpu = torch.cuda.is_available()
        device = torch.device("cuda" if use_gpu else "cpu")
        dtype = resolve_dtype(settings.dtype, use_gpu, settings.int8)
        model = _base_model(self.job)
        base = run_in_thread(lambda: ServedBase(model, dtype, device, settings.int8)).result()
        meters = Meters()
        limits = Limits(settings.max_batch_tokens, settings.max_queued_tokens, settings.max_queued_requests)
        self.engine = Engine(base, limits, threads, meters.observe)
        store = AdapterStore(
            base, settings.cache_bytes, settings.adapter_root, _own_folder(self.job), settings.merge == "auto"
        )
        self.registry = RegistryClient(registry)
        replica = serve.get_replica_context().replica_id.unique_id
        self.service = Service(self.job, replica, store, self.engine, self.registry, meters)
        self.tasks: list[asyncio.Task[None]] = []

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Comes back with the adapter table: a replica that has none yet would say 404 to what is sent to it."""
        open_admin = self.job.serve.host in LOOPBACK
        app = build_app(self.service, self.known, open_admin)
        loop = asyncio.get_running_loop()
        self.tasks = [loop.create_task(self._follow()), loop.create_task(self._watch())]
        while not self.service.ready:
            await asyncio.sleep(0.02)
        return app

    async def _follow(self) -> None:
        """Keep the table as the registry has it; a lost registry comes back, and until then the last table holds."""
        service, store, revision = self.service, self.service.store, -1
        while True:
            try:
                changes = await self.registry.sync(service.replica, revision, service.meter_text())
                table = store.table
                if changes:
                    table = changes if isinstance(changes, Table) else store.table.after(changes)
                if table.revision != store.table.revision or not service.ready:
                    await store.follow(table)
                revision, service.ready = table.revision, True
            except NotReadyError as error:
                logger.warning("%s", error)
                await asyncio.sleep(RETRY_S)

    async def _watch(self) -> None:
        while self.job.serve.adapter_root:
            await asyncio.sleep(self.job.serve.watch_s)
            try:
                await self.service.store.watch()
            except (OSError, RayLoraError):
                logger.exception("`serve.adapter_root` cannot be looked at")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Read by Ray Serve's autoscaler (`scaling.by_tokens`)."""
        return {TOKENS: float(self.engine.load.tokens)}

    def check_health(self) -> None:
        """Read by Ray Serve: a replica that raises is replaced."""
        if not self.engine.alive:
            raise RuntimeError("the engine's thread has ended")


def _base_model(job: Job) -> ModelSection:
    """The base of the first adapter that can be read; of the config where there is none yet."""
    settings = job.serve
    paths = [*settings.adapters.values()]
    if settings.adapter_root:
        paths += [inside(settings.adapter_root, name) for name in folders.names(settings.adapter_root)[:20]]
    for path in paths:
        try:
            with folders.local(folders.find(path)) as folder:
                manifest = read_manifest(folder)
        except RayLoraError:
            continue
        return served_base(manifest, job.model)
    return job.model


def _own_folder(job: Job) -> str | None:
    """The endpoint's run folder, where that lies among the adapters: `serve.adapter_root=runs`."""
    root = job.serve.adapter_root
    return job.run_name if root and folders.absolute(root) == folders.absolute(job.storage_path) else None


def _log_access() -> None:
    """A line per request on the replica's standard output, which Ray keeps."""
    logger = logging.getLogger("raylora.access")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
