"""A strict parser of Prometheus' text format, for tests of what we render."""

from __future__ import annotations

import re

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"')
UNESCAPED = {"\\\\": "\\", "\\n": "\n", '\\"': '"'}
Sample = tuple[str, tuple[tuple[str, str], ...]]


def parse(lines: list[str]) -> tuple[dict[str, str], dict[Sample, float]]:
    """Kinds by family, and values by (name, sorted labels). Raises ValueError for what Prometheus would complain of.

    That is: a sample outside its family; a family, series or label twice; buckets that fall or do not end in the count.
    """
    kinds: dict[str, str] = {}
    samples: dict[Sample, float] = {}
    family = ""
    for line in lines:
        if "\n" in line:
            raise ValueError(f"more than one line: {line!r}")
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            if family in kinds:
                raise ValueError(f"family {family} twice")
            kinds[family] = kind
        elif not line.startswith("# HELP "):
            name, labels, value = sample(line)
            suffixes = ("_bucket", "_sum", "_count") if kinds.get(family) == "histogram" else ("",)
            if name not in [family + suffix for suffix in suffixes]:
                raise ValueError(f"{name} in family {family}")
            key = (name, tuple(sorted(labels.items())))
            if key in samples:
                raise ValueError(f"twice: {line}")
            samples[key] = value
    check_histograms(kinds, samples)
    return kinds, samples


def sample(line: str) -> tuple[str, dict[str, str], float]:
    """Name, labels and value of one line."""
    found = NAME.match(line)
    if found is None:
        raise ValueError(f"no name: {line!r}")
    at, labels = found.end(), {}
    if line[at : at + 1] == "{":
        at += 1
        while line[at] != "}":
            label = LABEL.match(line, at)
            if label is None or label[1] in labels:
                raise ValueError(f"label at {at}: {line!r}")
            labels[label[1]] = re.sub(r'\\[\\n"]', lambda m: UNESCAPED[m[0]], label[2])
            at = label.end()
            if line[at] == ",":
                at += 1
            elif line[at] != "}":
                raise ValueError(f"after label at {at}: {line!r}")
        at += 1
    if line[at : at + 1] != " ":
        raise ValueError(f"no value: {line!r}")
    return found[0], labels, float(line[at + 1 :])


def check_histograms(kinds: dict[str, str], samples: dict[Sample, float]) -> None:
    """Buckets grow with `le`, and the last, +Inf, is the count."""
    buckets: dict[Sample, list[tuple[float, float]]] = {}
    for (name, labels), value in samples.items():
        if name.endswith("_bucket") and kinds.get(name.removesuffix("_bucket")) == "histogram":
            rest = tuple(pair for pair in labels if pair[0] != "le")
            buckets.setdefault((name.removesuffix("_bucket"), rest), []).append((float(dict(labels)["le"]), value))
    for (name, rest), found in buckets.items():
        values = [value for _, value in sorted(found)]
        if values != sorted(values) or sorted(found)[-1] != (float("inf"), samples[f"{name}_count", rest]):
            raise ValueError(f"buckets of {name}{rest}: {found}")
