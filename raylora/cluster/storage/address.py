"""Where files lie: a local path, or an address on object storage whose options (`?endpoint_override=...`) stay last."""


def is_remote(path: str) -> bool:
    return "://" in path


def parts(path: str) -> tuple[str, str, str]:
    """Of an address: itself, `?` and its options; the last two are empty where it has none, and of a local path."""
    return path.partition("?") if is_remote(path) else (path, "", "")


def inside(path: str, name: str) -> str:
    """A folder or file in a folder."""
    address, mark, options = parts(path)
    return f"{address.rstrip('/')}/{name}{mark}{options}"


def parent(path: str) -> str:
    """The folder around a folder."""
    address, mark, options = parts(path)
    return (address.rstrip("/").rpartition("/")[0] or ("/" if address.startswith("/") else ".")) + mark + options
