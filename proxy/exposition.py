"""Prometheus' text format: families of samples as lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def labelled(labels: Mapping[str, str]) -> str:
    """`{a="1",b="2"}`, or nothing for no labels."""
    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""


def number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def family(name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> list[str]:
    """Lines of one family (`kind`: counter, gauge); none where there is no sample."""
    lines = [f"{name}{labelled(labels)} {number(value)}" for labels, value in samples]
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines] if lines else []


def histogram(
    name: str,
    text: str,
    bounds: tuple[float, ...],
    samples: Iterable[tuple[str, list[int], float]],
) -> list[str]:
    """Lines of one histogram: of each sample its labels as rendered (no braces), counts per bucket, and the sum."""
    lines = []
    ends = [number(bound) for bound in bounds] + ["+Inf"]
    for labels, counts, total in samples:
        comma = "," if labels else ""
        running = 0
        for end, count in zip(ends, counts, strict=True):
            running += count
            lines.append(f'{name}_bucket{{{labels}{comma}le="{end}"}} {running}')
        braces = "{" + labels + "}" if labels else ""
        lines += [f"{name}_sum{braces} {number(total)}", f"{name}_count{braces} {running}"]
    return [f"# HELP {name} {text}", f"# TYPE {name} histogram", *lines] if lines else []
