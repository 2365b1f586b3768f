"""`make fuzz`: every target at length. Guided by coverage where atheris is installed, else by hypothesis alone.

python tests/fuzz/run.py [--seconds 60] [--only NAME,...]

Exit code 1 where something was found: the input is printed, and belongs among the target's seeds with its fix.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CORPUS = ROOT / "build" / "fuzz"
ABSENT = (
    "fuzz: atheris is not installed, so nothing is guided by coverage; hypothesis goes on alone. "
    "To have it: .venv/bin/pip install atheris (CPython 3.11 to 3.13 on Linux)."
)


def names() -> list[str]:
    sys.path.append(str(ROOT / "build" / "view"))
    from tests.fuzz.targets import TARGETS

    return list(TARGETS)


def by_hypothesis(only: list[str], examples: int) -> bool:
    print(f"fuzz: {len(only)} targets by hypothesis, {examples} examples each", flush=True)
    wanted = " or ".join(only)
    environment = os.environ | {"FAIRLEAD_FUZZ_EXAMPLES": str(examples), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "tests/fuzz", "-k", wanted]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


def by_atheris(name: str, seconds: int) -> bool:
    """One target in a process of its own: what is found ends it."""
    print(f"fuzz: {name} by atheris, {seconds} s", flush=True)
    command = [sys.executable, str(Path(__file__)), "--guided", name, "--seconds", str(seconds)]
    with tempfile.TemporaryFile("w+") as told:
        code = subprocess.run(command, cwd=ROOT, stdout=told, stderr=told, check=False).returncode
        if code:
            told.seek(0)
            print(told.read()[-6000:], flush=True)
    return code == 0


def guided(name: str, seconds: int) -> None:
    """Runs in the process of its own; does not return."""
    import atheris

    sys.path.append(str(ROOT / "build" / "view"))
    with atheris.instrument_imports(include=["fairlead", "tests.fuzz"]):
        from tests.fuzz.targets import TARGETS
    atheris.instrument_all()  # the plain form of compiled modules is loaded by hand
    run, seeds = TARGETS[name]

    def one(data: bytes) -> None:
        try:
            run(data)
        except BaseException:
            print(f"fuzz: {name} fails for {data!r}", flush=True)
            raise

    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed{number}").write_bytes(seed)
    arguments = [sys.argv[0], f"-max_total_time={seconds}", "-max_len=2048", "-timeout=20", "-rss_limit_mb=2048"]
    atheris.Setup([*arguments, f"-artifact_prefix={corpus.parent}/", str(corpus)], one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of each target, guided by coverage (default 60)")
    parser.add_argument("--examples", type=int, default=5000, help="of each target, by hypothesis (default 5000)")
    parser.add_argument("--only", default="", help="names of targets, separated by commas")
    parser.add_argument("--guided", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.guided:
        guided(options.guided, options.seconds)
    known = names()
    only = [name for name in options.only.split(",") if name] or known
    if unknown := set(only) - set(known):
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    good = by_hypothesis(only, options.examples)
    if importlib.util.find_spec("atheris") is None:
        print(ABSENT)
    else:
        failed = [name for name in only if not by_atheris(name, options.seconds)]
        good = good and not failed
    print("fuzz: nothing found" if good else "fuzz: FOUND something, see above")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
