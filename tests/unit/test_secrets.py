"""Secrets never get into a config, and so into nothing that is printed or saved of it."""

from pathlib import Path

import pytest
from commands import run

from raylora.config import Job, parse
from raylora.config.file import read
from raylora.config.secrets import redact, secret_in
from raylora.errors import ConfigError

API_KEY = "rl-" + "a1-_" * 10 + "xyz"
SECRETS = {
    "s3://AKIAEXAMPLE:wJalrXUtnFEMI@bucket/runs": "a password before the `@`",
    "s3://AKIAEXAMPLE:wJalr/XUtnFEMI@bucket/runs?region=eu": "a password before the `@`",
    "abfss://:wJalrXUtnFEMI@account/container": "a password before the `@`",
    "https://me:wJalrXUtnFEMI@example.com/data.csv": "a password before the `@`",
    "s3://bucket/runs?access_key=AKIAEXAMPLE&secret_key=wJalrXUtnFEMI": "the parameter `access_key`",
    "s3://bucket/runs?region=eu&secret_key=wJalrXUtnFEMI": "the parameter `secret_key`",
    "abfs://account/x?client_secret=wJalrXUtnFEMI": "the parameter `client_secret`",
    "https://x.example/a.csv?X-Amz-Expires=60&X-Amz-Signature=wJalrXUtnFEMI": "the parameter `X-Amz-Signature`",
    "https://x.example/a.csv?sv=2024&sig=wJalrXUtnFEMI": "the parameter `sig`",
    f"predict={API_KEY}": "an API key",
    "hf_wJalrXUtnFEMIwJalrXUtnFEMI": "a Hugging Face token",
}
PLAIN = [
    "s3://bucket/runs?region=eu-west-1&endpoint_override=http://127.0.0.1:9000",
    "s3://bucket/a:b/c@d",
    "hdfs://namenode:8020/user@host/x",
    "http://127.0.0.1:8299",
    "abfs://container@account.dfs.core.windows.net/x?credential_kind=cli",
    "hf://stanfordnlp/sst2",
    "/data/secret_key=1/token.csv",
    "env:RAYLORA_KEYS",
    "rl-short",
    "sentence-transformers/all-MiniLM-L6-v2",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_seen_and_redacted(text: str) -> None:
    assert (secret_in(text) or "").startswith(SECRETS[text])
    for word in ("wJalrXUtnFEMI", "XUtnFEMI", API_KEY):
        assert word not in redact(f"found {text!r}")


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_passes(text: str) -> None:
    assert secret_in(text) is None
    assert redact(text) == text


@pytest.mark.parametrize("key", ["storage_path", "data.train", "data.test", "model.base_model", "serve.adapter_root"])
def test_a_config_with_a_secret_is_refused_by_its_key_without_showing_it(key: str) -> None:
    for text in SECRETS:
        with pytest.raises(ConfigError, match=f"`{key}` holds a|`{key}` holds the parameter") as caught:
            Job().replace({key: text})
        assert "XUtnFEMI" not in str(caught.value)
        assert API_KEY not in str(caught.value)


def test_secrets_in_lists_and_mappings_are_seen() -> None:
    url = "s3://a:wJalr@bucket/x"
    for key, value in (("data.train", ["a.csv", url]), ("serve.adapters", {"x": url}), ("tune.space", {"lora.r": url})):
        with pytest.raises(ConfigError, match=rf"`{key}[\w.]*` holds a password"):
            Job().replace({key: value})


def test_a_variable_of_replicas_that_is_a_secret_by_name_is_refused() -> None:
    def options(**variables: str) -> dict[str, object]:
        return {"serve": {"ray_actor_options": {"num_cpus": 1, "runtime_env": {"env_vars": variables}}}}

    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "db_password"):
        with pytest.raises(ConfigError, match=f"env_vars.{name}` holds a secret") as caught:
            parse(options(**{name: "wJalr"}))
        assert "wJalr" not in str(caught.value)
    parse(options(TOKENIZERS_PARALLELISM="false", GOMP_SPINCOUNT="1", GOOGLE_APPLICATION_CREDENTIALS="/etc/gcp.json"))


def test_a_secret_from_the_environment_is_refused_like_one_written_out(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("storage_path: s3://${ID}:${SECRET}@bucket/runs\n")
    with pytest.raises(ConfigError, match="`storage_path` holds a password") as caught:
        read([str(path)], {"ID": "AKIA", "SECRET": "wJalr"})
    assert "wJalr" not in str(caught.value)


@pytest.mark.parametrize("command", [["train"], ["tune"], ["serve"], ["serve", "--print-config"], ["bench", "train"]])
def test_no_command_prints_a_secret(command: list[str], tmp_path: Path) -> None:
    words = ["storage_path=s3://AKIA:wJalr@bucket/runs", "serve.adapter_root=."]
    for more in ([], ["lora.r=s3://AKIA:wJalr@b/x"], ["data.train=[s3://AKIA:wJalr@b/x"], ["--dry-run"]):
        if command[0] == "bench" and more == ["--dry-run"]:
            continue
        result = run("raylora", *command, *words, *more, cwd=tmp_path)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("error: ")
        assert "wJalr" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_api_key_where_its_file_belongs_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"`serve\.api_keys` holds an API key") as caught:
        Job().replace({"serve.api_keys": API_KEY})
    assert API_KEY not in str(caught.value)
