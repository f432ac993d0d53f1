"""KubeRay's resources as a JSON schema: its fields from tests/data, Kubernetes's own from `kubernetes-validate`."""

import json
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

FIELDS = Path(__file__).parent / "data" / "kuberay-1.6.2.yaml"
KUBERNETES = kubernetes_validate.latest_version()
SIMPLE: dict[str, dict[str, Any]] = {
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    **{name: {"type": name} for name in ("string", "boolean", "number")},
}


def faults(document: dict[str, Any]) -> list[str]:
    """What is wrong with one document of a manifest: `place: reason`, none if the API server would take it."""
    if not document["apiVersion"].startswith("ray.io/"):
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            return [error.message]
        return []
    found = _validator(document["kind"]).iter_errors(document)
    return sorted(f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found)


@lru_cache
def _validator(kind: str) -> Draft202012Validator:
    path = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict" / "_definitions.json"
    kubernetes = Resource.from_contents(json.loads(path.read_text(encoding="utf-8")))
    fields = yaml.safe_load(FIELDS.read_text(encoding="utf-8"))
    defined = {name: _object(types) for name, types in fields.items()}
    schema = {"$defs": defined, "$ref": f"#/$defs/{kind}"}
    return Draft202012Validator(schema, registry=kubernetes @ Registry())


def _object(types: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name.rstrip("!"): _type(value) for name, value in types.items()},
        "required": [name.rstrip("!") for name in types if name.endswith("!")],
    }


def _type(value: str | list[str]) -> dict[str, Any]:
    if isinstance(value, list):
        return {"enum": value}
    if value.startswith("list of "):
        return {"type": "array", "items": _type(value.removeprefix("list of "))}
    if value.startswith("integer from "):
        return SIMPLE["integer"] | {"minimum": int(value.removeprefix("integer from "))}
    if value.startswith("k8s."):
        group = "io.k8s.apimachinery.pkg.apis.meta.v1" if value == "k8s.ObjectMeta" else "io.k8s.api.core.v1"
        return {"$ref": f"https://kubernetes.io/api/_definitions.json#/$defs/{group}.{value.removeprefix('k8s.')}"}
    return SIMPLE.get(value) or {"$ref": f"#/$defs/{value}"}
