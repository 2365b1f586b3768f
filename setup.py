"""Compile the hot loops. Everything else about the package is in pyproject.toml.

FAIRLEAD_PURE=1 builds without them; where there is no compiler the build says so and goes on, since every
compiled module also runs as the plain Python that it is. FAIRLEAD_REUSE=1 takes into a wheel what is compiled in the
checkout already and no source is newer than: CI does not compile twice.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
PACKAGES = ("registry", "policy", "dns", "proxy", "mesh", "control")
# Each has a .pxd beside it that gives the types; see tests/test_packaging.py.
COMPILED: tuple[str, ...] = (
    "dns/_datagrams.py",
    "dns/_fast.py",
    "dns/_limit.py",
    "policy/decide.py",
    "policy/match.py",
    "policy/tables.py",
    "proxy/access_line.py",
    "proxy/balance.py",
    "proxy/cluster.py",
    "proxy/connection.py",
    "proxy/connection2.py",
    "proxy/core.py",
    "proxy/exchange.py",
    "proxy/headers.py",
    "proxy/host.py",
    "proxy/hpack.py",
    "proxy/http1.py",
    "proxy/http2.py",
    "proxy/http2_heads.py",
    "proxy/huffman.py",
    "proxy/message.py",
    "proxy/metrics.py",
    "proxy/outbox.py",
    "proxy/poller.py",
    "proxy/pool.py",
    "proxy/rate_limit.py",
    "proxy/recorder.py",
    "proxy/relay.py",
    "proxy/tls.py",
    "proxy/upstream.py",
    "proxy/upstream2.py",
    "proxy/wire.py",
)


def link_view() -> Path:
    """Make build/view/fairlead/<package>, links to the six folders, build/view/tests and bench, and return build/view.

    Tools that look a module up by name in a folder (Cython for .pxd files, mypy, pyright) cannot see the
    package-dir mapping of pyproject.toml; the view gives them that folder.
    """
    view = ROOT / "build" / "view"
    (view / "fairlead").mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        link = view / "fairlead" / name
        if not link.is_symlink():
            link.symlink_to(Path("../../..") / name)
    for name in ("tests", "bench"):
        link = view / name
        if not link.is_symlink():
            link.symlink_to(Path("../..") / name)
    return view


class OptionalBuildExt(build_ext):
    """Build what can be built; say plainly what could not, and how to get it."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # distutils raises half a dozen unrelated classes when a compiler is missing
            self.plain(error)

    def build_extension(self, ext: Extension) -> None:
        try:
            if not self.reuse(ext):
                super().build_extension(ext)
        except Exception as error:
            self.plain(error, ext.name)

    def reuse(self, ext: Extension) -> bool:
        """With FAIRLEAD_REUSE=1: take what the checkout has compiled already, where nothing is newer. Whether
        that was done."""
        made = ROOT / Path(self.get_ext_filename(ext.name)).relative_to("fairlead")
        if os.environ.get("FAIRLEAD_REUSE") != "1" or self.inplace or not made.exists():
            return False
        sources = [ROOT / "setup.py", ROOT / "pyproject.toml"]
        sources += [path for one in COMPILED for path in (ROOT / one, (ROOT / one).with_suffix(".pxd"))]
        if max(path.stat().st_mtime for path in sources) > made.stat().st_mtime:
            return False
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(made, target)
        return True

    def plain(self, error: BaseException, name: str = "the hot modules") -> None:
        print(
            f"fairlead: {name} not compiled ({error}); running as plain Python, slower but complete. "
            "To compile: install a C compiler and the Python headers (Debian: gcc python3-dev), then reinstall.",
            file=sys.stderr,
        )

    def get_outputs(self) -> list[str]:
        return [name for name in super().get_outputs() if Path(name).exists()]

    def copy_extensions_to_source(self) -> None:
        self.extensions = [
            ext
            for ext in self.extensions
            if Path(self.get_ext_fullpath(ext.name)).exists()
            or Path(self.build_lib, self.get_ext_filename(ext.name)).exists()
        ]
        super().copy_extensions_to_source()


def extensions() -> list[Extension]:
    view = link_view()
    if os.environ.get("FAIRLEAD_PURE") == "1" or not COMPILED:
        print("fairlead: FAIRLEAD_PURE=1: running as plain Python, slower but complete.", file=sys.stderr)
        return []
    if not (shutil.which(os.environ.get("CC", "cc").split()[0]) or shutil.which("gcc")):
        print(
            "fairlead: no C compiler found; the hot modules run as plain Python, slower but complete. "
            "To compile: install gcc and python3-dev, then reinstall.",
            file=sys.stderr,
        )
        return []
    from Cython.Build import cythonize

    found = []
    for source in COMPILED:
        if not (ROOT / source).with_suffix(".pxd").is_file():
            raise SystemExit(f"{source}: no .pxd beside it; it would compile to slow, untyped code")
        name = "fairlead." + source.removesuffix(".py").replace("/", ".")
        found.append(Extension(name, [source], extra_compile_args=["-O2"]))
    built: list[Extension] = cythonize(
        found,
        include_path=[str(view)],
        # Types come from the .pxd alone: an `int` annotation in the .py is for people and mypy.
        compiler_directives={"language_level": "3", "annotation_typing": False, "auto_pickle": False},
        nthreads=os.cpu_count() or 1,
    )
    for extension in built:
        extension.optional = True  # cythonize() drops it
    return built


shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # setuptools would ship modules deleted since
setup(ext_modules=extensions(), cmdclass={"build_ext": OptionalBuildExt})
