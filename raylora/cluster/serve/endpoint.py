"""The endpoint as a Ray Serve application: run here, or written as YAML for `serve deploy`."""

import io
import logging
import signal
import socket
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import closing, contextmanager, redirect_stdout
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application

from raylora.cluster.placement import Need, check_room
from raylora.cluster.serve import adapter_folders as folders
from raylora.cluster.serve import keys
from raylora.cluster.serve.adapter_folders import absolute
from raylora.cluster.serve.quantized import tell_change
from raylora.cluster.serve.registry import Registry
from raylora.cluster.serve.replica import Endpoint
from raylora.cluster.session import Cluster, connect, environ
from raylora.cluster.storage.lock import hold
from raylora.cluster.storage.run_folder import RunFolder
from raylora.config import Job, ServeSection, parse, yaml12
from raylora.config.serve import LOOPBACK
from raylora.errors import ClusterError, ConfigError, ModelError
from raylora.model.base.find import whole_name
from raylora.model.serving.adapter import read_files
from raylora.records import Say

TARGET_TOKENS = 4096.0
QUIET = {"log_level": "WARNING", "enable_access_log": False}  # the middleware logs each request, with its adapter
GROUP_S = 0.5  # in which Ray's processes have ended, where a signal was for all of the process group
OWN_LIMIT = 100_000  # requests at a replica: raylora refuses earlier, by tokens


def build(arguments: dict[str, Any]) -> Application:
    """The application of a job's tree; what `import_path` names in a Serve config file."""
    return application(parse(arguments), threads=None)


def application(job: Job, threads: int | None) -> Application:
    """Args:
    threads: of torch in a replica; None = as many as `num_cpus` reserves.
    """
    tree, settings = job.model_dump(), job.serve
    known = keys.read(settings.api_keys, environ())
    own = threads or max(1, int(settings.ray_actor_options.get("num_cpus", 1)))
    registry: Any = serve.deployment(
        Registry, name="registry", max_ongoing_requests=OWN_LIMIT, ray_actor_options={"num_cpus": 0}
    )
    endpoint: Any = serve.deployment(
        serve.ingress()(Endpoint),
        name="endpoint",
        max_ongoing_requests=OWN_LIMIT,
        ray_actor_options=settings.ray_actor_options | _environment(settings.ray_actor_options),
        health_check_period_s=2.0,
        graceful_shutdown_timeout_s=30.0,
        **_replicas(settings.autoscaling_config),
    )
    return endpoint.bind(tree, known, own, registry.bind(tree, uuid.uuid4().hex))


def _environment(options: dict[str, Any]) -> dict[str, Any]:
    """Torch's threads spin for some ten milliseconds while they wait for each other, then sleep.

    Sleeping at once, a forward of 1 x 16 tokens takes twice as long on 2 cores: it has a hundred parallel parts.
    """
    given = dict(options.get("runtime_env", {}))
    given["env_vars"] = {"GOMP_SPINCOUNT": "1000000", **given.get("env_vars", {})}
    return {"runtime_env": given}


def _replicas(wished: dict[str, float]) -> dict[str, Any]:
    fewest, most = int(wished.get("min_replicas", 1)), int(wished.get("max_replicas", 1))
    if fewest == most:
        return {"num_replicas": fewest}
    counts = {name: int(value) for name, value in wished.items() if name.endswith("_replicas")}
    times = {name: float(value) for name, value in wished.items() if name.endswith("_s")}
    target = wished.get("target_ongoing_tokens", TARGET_TOKENS)
    policy = {"policy_function": "raylora.cluster.serve.scaling:by_tokens"}
    return {"autoscaling_config": {**counts, **times, "target_ongoing_requests": target, "policy": policy}}


def serve_config(job: Job) -> str:
    """The YAML that `serve deploy` takes; a path in it is absolute, so that it means the same anywhere."""
    app = {
        "name": job.run_name,
        "route_prefix": "/",
        "import_path": "raylora.cluster.serve.endpoint:build",
        "args": _with_absolute_paths(job).model_dump(),
    }
    http = {"host": job.serve.host, "port": job.serve.port}
    return yaml12.dump({"http_options": http, "applications": [app]})


def _with_absolute_paths(job: Job) -> Job:
    settings = job.serve
    changes: dict[str, Any] = {
        "storage_path": absolute(job.storage_path),
        "model.base_model": whole_name(job.model.base_model),
        "serve.adapters": {name: absolute(path) for name, path in settings.adapters.items()},
        "serve.adapter_root": settings.adapter_root and absolute(settings.adapter_root),
    }
    if settings.api_keys and not settings.api_keys.startswith("env:"):
        changes["serve.api_keys"] = absolute(settings.api_keys)
    return job.replace(changes)


def check(job: Job) -> None:
    """What can be known before Ray starts.

    Raises:
        ConfigError: nothing to serve, keys that cannot be read.
        ModelError: an adapter of `serve.adapters` is not one.
    """
    settings = job.serve
    keys.read(settings.api_keys, environ())
    if not settings.adapters and not settings.adapter_root:
        raise ConfigError(
            "nothing to serve: set serve.adapters.NAME=PATH for one adapter, or serve.adapter_root for a folder."
        )
    for path in settings.adapters.values():
        try:
            with folders.local(folders.find(path)) as folder:
                read_files(folder)
        except OSError as error:
            raise ModelError(f"adapter {path} cannot be read: {error}") from None


def run(job: Job, say: Say) -> None:
    """Serve until Ctrl-C or SIGTERM; on a cluster, deploy and come back.

    Raises:
        ConfigError: the run folder cannot be written to.
        ClusterError: the port is taken, or Serve cannot start.
    """
    job = _with_absolute_paths(job)
    check(job)
    with hold(RunFolder(job), say):
        pass  # it can be written to, and no other job works there
    settings = job.serve
    ended = threading.Event()
    with connect(job.ray) as cluster:
        say(f"cluster    {cluster}")
        check_room(_need(settings), cluster, job.ray)
        if line := host_warning(settings.host, cluster):
            say(line)
        if cluster.gpus and not _gpus(settings):
            say("           on CPUs; serve.ray_actor_options='{num_cpus: 1, num_gpus: 1}' gives each replica a GPU")
        if cluster.own:
            _check_port(settings.host, settings.port)
        if settings.int8:
            tell_change(job, say)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)  # its import sets INFO
        where = "HeadOnly" if cluster.own else None
        with coming_up():
            serve.start(proxy_location=where, http_options=_http_options(job), logging_config=QUIET)
            serve.run(
                application(job, _threads(job, cluster)), name=str(job.run_name), route_prefix="/", logging_config=QUIET
            )
        shown = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host
        say(f"serving    http://{shown}:{settings.port}  ({_what(job)})")
        if not cluster.own:
            say(f"           to end it: serve shutdown, or delete the application '{job.run_name}'")
            return
        # not before: until here a signal unwinds what waits for Serve, which may never come of a Ray that it ended
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        say("           Ctrl-C ends it")
        ended.wait()
        say("ending")
        _end(cluster)


@contextmanager
def coming_up() -> Generator[None]:
    """Raises:
    ClusterError: in place of what Ray Serve raises.
    """
    try:
        yield
    except (RayError, RuntimeError, TimeoutError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ClusterError(
            f"Ray Serve did not come up: {lines[0] if lines else type(error).__name__}\n"
            + "".join(f"  {line}\n" for line in lines[1:][-4:])
            + "On a busy machine it may have been too slow: then try again."
        ) from None


def _end(cluster: Cluster) -> None:
    """End Serve, and the Ray that this process started, without a word of theirs: of its own controller, which it ends
    while that still has a call to answer, Ray would say in colour that it died.

    A signal to the whole process group ends Ray's processes, too; then there is nobody to shut down in good order.
    """
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    time.sleep(GROUP_S)
    with redirect_stdout(io.StringIO()):
        if _answers(cluster.address):
            serve.shutdown()
        ray.shutdown()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def host_warning(host: str, cluster: Cluster) -> str | None:
    """A line for an endpoint that listens on each node's own loopback address; None where that is all there is."""
    if len(cluster.nodes) == 1 or host not in LOOPBACK:
        return None
    return (
        f"warning    serve.host {host} is each node's own: behind HAProxy, replicas on other nodes cannot be reached. "
        "Set serve.host=0.0.0.0, and serve.api_keys"
    )


def _need(settings: ServeSection) -> Need:
    """What the fewest replicas reserve; one, where there may be none at times."""
    options = settings.ray_actor_options
    named = {"CPU": options.get("num_cpus", 1), "GPU": _gpus(settings), **options.get("resources", {})}
    fewest = max(1, int(settings.autoscaling_config.get("min_replicas", 1)))
    each = {name: float(amount) for name, amount in named.items()}
    return Need("serve.autoscaling_config.min_replicas", fewest, "serve.ray_actor_options", each)


def _threads(job: Job, cluster: Cluster) -> int | None:
    """On a Ray of its own, replicas share out all cores."""
    most = int(job.serve.autoscaling_config.get("max_replicas", 1))
    return max(1, cluster.cpus // most) if cluster.own and not _gpus(job.serve) else None


def _gpus(settings: ServeSection) -> float:
    """Of a replica."""
    return float(settings.ray_actor_options.get("num_gpus") or 0)


def _what(job: Job) -> str:
    names = ", ".join(list(job.serve.adapters)[:5]) + (", …" if len(job.serve.adapters) > 5 else "")
    return " and ".join(filter(None, (names, job.serve.adapter_root)))


def _http_options(job: Job) -> dict[str, Any]:
    return {"host": job.serve.host, "port": job.serve.port}


def _check_port(host: str, port: int) -> None:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(f"cannot listen on {host}:{port}: {error.strerror}. Set `serve.port`.") from None
