"""Shell: `fairlead kubeconfig`: lets kubectl and Kubernetes client libraries know the control API."""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .cli_client import failed
from .kubeconfig import Config, Entries, KubeconfigError, check, merge
from .settings import SettingError, bearer_token, cause, control_url, why

SIZE_MOST = 10 << 20


def main(options: Any) -> int:
    try:
        entries = entries_of(options)
        if options.kubeconfig == "-":
            files: list[tuple[str, Config]] = [("-", {})]
            merge(files, 0, entries)
            print(yaml.safe_dump(files[0][1], sort_keys=False), end="")
            return 0
        paths, default = places(options.kubeconfig, os.environ.get("KUBECONFIG", ""))
        with contextlib.ExitStack() as locks:
            for path in paths:
                locks.enter_context(locked(path))
            files = [(str(path), read(path)) for path in paths]
            changed = merge(files, default, entries, options.force, options.use)
            for number in sorted(changed):
                write(paths[number], files[number][1])
    except (KubeconfigError, OSError) as error:
        return failed(why(error))
    current = next((config["current-context"] for _, config in files if config.get("current-context")), "")
    what = f"context {entries.context_name}" + ("" if changed else " (unchanged)")
    print(f"{what} in {', '.join(files[number][0] for number in sorted(changed or {default}))}")
    if current != entries.context_name:
        print(f"the current context is still {current}; kubectl --context {entries.context_name}, or --use",
              file=sys.stderr)  # fmt: skip
    return 0


def entries_of(options: Any) -> Entries:
    """The entries that the flags ask for. Raises SettingError, OSError."""
    url = control_url(options.control)
    cluster: dict[str, Any] = {"server": url}
    if options.ca:
        cluster["certificate-authority-data"] = embedded("--ca", options.ca, "CERTIFICATE")
    elif url.startswith("https:"):
        print("no --ca: kubectl will accept the control API only by an authority of this system (its file is "
              "DATA-DIR/ca.pem, or GET /fairlead/v1/roots)", file=sys.stderr)  # fmt: skip
    user: dict[str, Any] = {}
    if bool(options.client_certificate) != bool(options.client_key):
        raise SettingError("--client-certificate and --client-key: give both or none")
    if options.client_certificate:
        user["client-certificate-data"] = embedded("--client-certificate", options.client_certificate, "CERTIFICATE")
        user["client-key-data"] = embedded("--client-key", options.client_key, "PRIVATE KEY")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(options.client_certificate, options.client_key)
        except ssl.SSLError as error:
            raise SettingError(f"--client-key {options.client_key}: not the key of the certificate: {error}") from error
    if options.token:
        user["token"] = options.token
    elif options.token_file:
        try:
            bearer_token(options.token_file)
        except (OSError, ValueError) as error:
            raise SettingError(f"--token-file {options.token_file}: {cause(error)}") from error
        user["tokenFile"] = os.path.abspath(options.token_file)  # read by kubectl each time: it may be replaced
    if user and url.startswith("http:"):
        print(f"kubectl sends no credentials over plain HTTP, so it is nobody at {url}: give control --tls-listen, and "
              "here --control https://... --ca FILE", file=sys.stderr)  # fmt: skip
    context = options.context or options.name
    return Entries(options.name, cluster, options.user or options.name, user, context, options.namespace or "")


def embedded(flag: str, path: str, what: str) -> str:
    """A PEM file in base64, as kubeconfig embeds it."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SettingError(f"{flag} {path}: {error.strerror or error}") from error
    if f"{what}-----".encode() not in data:
        raise SettingError(f"{flag} {path}: expected PEM with a {what}")
    return base64.b64encode(data).decode()


def places(given: str | None, environment: str) -> tuple[list[Path], int]:
    """The files that count together, and the number of the one that new entries go to, as kubectl chooses them."""
    if given:
        return [Path(given)], 0
    paths = [Path(one) for one in dict.fromkeys(filter(None, environment.split(os.pathsep)))]
    if not paths:
        return [Path.home() / ".kube" / "config"], 0
    return paths, next((n for n, path in enumerate(paths) if path.exists()), len(paths) - 1)


def read(path: Path) -> Config:
    """Raises KubeconfigError, OSError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    if len(data) > SIZE_MOST:
        raise KubeconfigError(f"{path}: larger than {SIZE_MOST} bytes")
    try:
        return check(yaml.safe_load(data), str(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, KubeconfigError):
            raise
        text = " ".join(str(error).split())
        raise KubeconfigError(f"{path}: cannot be read, and is left as it is: {text}") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep others out as kubectl does, by a file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = path.with_name(path.name + ".lock")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise KubeconfigError(
            f"{lock} exists: another program is writing {path.name}; remove it if none is"
        ) from None  # fmt: skip
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def write(path: Path, config: Config) -> None:
    """Replace a file at once; where it is a link, what it points to. Only its owner may read a new one."""
    real = Path(os.path.realpath(path))
    real.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = real.with_name(f"{real.name}.fairlead-new")
    mode = real.stat().st_mode & 0o777 if real.exists() else 0o600
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(config, file, sort_keys=False, allow_unicode=True)
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(mode)
    draft.replace(real)
