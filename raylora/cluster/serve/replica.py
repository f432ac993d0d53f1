"""A Serve replica: one base model, the adapters it holds, and its HTTP face."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle

from raylora.cluster.serve import adapter_folders as folders
from raylora.cluster.serve.adapter_store import AdapterStore
from raylora.cluster.serve.follower import RETRY_S, follow
from raylora.cluster.serve.http import build_app
from raylora.cluster.serve.keys import HashedKey
from raylora.cluster.serve.meters import Meters
from raylora.cluster.serve.scaling import TOKENS
from raylora.cluster.serve.service import Service
from raylora.cluster.serve.table import Change, Outcome, Table
from raylora.cluster.storage.run_folder import VERSIONS, RunFolder
from raylora.config import Job, ModelSection, ServeSection, parse
from raylora.config.serve import LOOPBACK
from raylora.errors import NotReadyError, RayLoraError
from raylora.model.serving.base import ServedBase, resolve_dtype
from raylora.model.serving.engine import Engine, Limits
from raylora.model.threads import run_in_thread

logger = logging.getLogger(__name__)

SWITCH_S = 0.0005  # the engine asks for Python's lock at every operation; Python's 5 ms looked slower at 32 clients


class RegistryClient:
    """`service.Changes` through Serve: the registry's own errors, not Ray's around them."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self.handle: Any = handle

    async def sync(
        self, replica: str, revision: int, meters: str, fault: str, unloaded: Mapping[str, str]
    ) -> Table | list[Change]:
        return await self._call(self.handle.sync.remote, replica, revision, meters, fault, unloaded)

    async def put(self, name: str, path: str, digest: str, traffic: float) -> Outcome:
        return await self._call(self.handle.put.remote, name, path, digest, traffic)

    async def drop(self, name: str) -> Outcome:
        return await self._call(self.handle.drop.remote, name)

    async def rollback(self, name: str) -> Outcome:
        return await self._call(self.handle.rollback.remote, name)

    async def promote(self, name: str) -> Outcome:
        return await self._call(self.handle.promote.remote, name)

    async def meters(self) -> dict[str, str]:
        return await self._call(self.handle.meters.remote)

    async def base(self) -> ModelSection:
        return await self._call(self.handle.base.remote)

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

    async def __init__(self, tree: dict[str, Any], known: list[HashedKey], threads: int | None, registry: Any) -> None:
        _log_access()
        sys.setswitchinterval(SWITCH_S)
        self.job, self.known = parse(tree), known
        self.registry = RegistryClient(registry)
        settings = self.job.serve
        device = device_of(settings)
        use_gpu = device.type == "cuda"
        dtype = resolve_dtype(settings.dtype, use_gpu, settings.int8)
        model = await self._base()
        base = await asyncio.wrap_future(run_in_thread(lambda: ServedBase(model, dtype, device, settings.int8)))
        meters = Meters()
        limits = Limits(settings.max_batch_tokens, settings.max_queued_tokens, settings.max_queued_requests)
        self.engine = Engine(base, limits, threads, meters.observe)
        store = AdapterStore(
            base,
            settings.cache_bytes,
            settings.adapter_root,
            _own_folder(self.job),
            settings.merge == "auto",
            RunFolder(self.job).inside(VERSIONS),
        )
        replica = serve.get_replica_context().replica_id.unique_id
        self.service = Service(self.job, replica, store, self.engine, self.registry, meters)
        self.tasks: list[asyncio.Task[None]] = []

    async def _base(self) -> ModelSection:
        """As the registry has decided, once for all replicas."""
        while True:
            try:
                return await self.registry.base()
            except NotReadyError as error:
                logger.warning("%s", error)
                await asyncio.sleep(RETRY_S)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Comes back with the adapter table: a replica that has none yet would say 404 to what is sent to it."""
        open_admin = self.job.serve.host in LOOPBACK
        app = build_app(self.service, self.known, open_admin)
        loop = asyncio.get_running_loop()
        self.tasks = [loop.create_task(follow(self.service, self.registry)), loop.create_task(self._watch())]
        while not self.service.ready:
            await asyncio.sleep(0.02)
        return app

    async def _watch(self) -> None:
        while self.job.serve.adapter_root:
            await asyncio.sleep(self.job.serve.watch_s)
            try:
                await self.service.store.watch()
            except Exception:  # the next look may find it again
                logger.exception("`serve.adapter_root` cannot be looked at")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Read by Ray Serve's autoscaler (`scaling.by_tokens`)."""
        return {TOKENS: float(self.engine.load.tokens)}

    def check_health(self) -> None:
        """Read by Ray Serve: a replica that raises is replaced."""
        if not self.engine.alive:
            raise RuntimeError("the engine's thread has ended")
        if self.tasks and self.tasks[0].done():
            raise RuntimeError("the table of adapters is followed no more")


def device_of(settings: ServeSection) -> torch.device:
    """The GPU that a replica asked for, else the CPUs, whatever it sees: Ray hides no GPU from it."""
    asked = float(settings.ray_actor_options.get("num_gpus") or 0) > 0
    if asked and not torch.cuda.is_available():
        logger.warning("`serve.ray_actor_options.num_gpus` is set, and torch finds no GPU here: it runs on CPUs")
    return torch.device("cuda" if asked and torch.cuda.is_available() else "cpu")


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
