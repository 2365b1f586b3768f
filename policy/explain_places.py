"""Where the objects of an explanation stand: file and line of a manifest, or revision of a live resource."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..registry.documents import Document
from ..registry.documents import Path as Steps
from ..registry.model import Service
from ..registry.names import split_service_host

_WORKLOADS = ("Pod", "WorkloadEntry")


class Places:
    """Objects by `Kind namespace/name`. The lines of a document are read only when the first of them is asked for."""

    def __init__(self, documents: Iterable[Document] = (), revisions: Mapping[str, str] | None = None) -> None:
        self._documents: dict[str, Document] = {}
        for document in documents:
            self._documents.setdefault(f"{document.kind} {document.namespace}/{document.name}", document)
        self._revisions = revisions or {}
        """Of objects of a live mesh that came without their text: those that state facts."""
        self._lines: dict[int, dict[Steps, int]] = {}

    def __contains__(self, resource: str) -> bool:
        return resource in self._documents or resource in self._revisions

    def at(self, resource: str, path: str = "") -> dict[str, Any]:
        """`file` and `line` of a field, or `revision` of the object; neither where it is not known."""
        document = self._documents.get(resource)
        if document is None:
            revision = self._revisions.get(resource)
            return {"revision": revision} if revision else {}
        if document.lines is not None:
            lines = self._lines.get(id(document))
            if lines is None:
                lines = self._lines[id(document)] = document.lines.read()
            return {"file": document.file, "line": document.line_of(path, lines) or document.line}
        metadata = document.body.get("metadata")
        revision = str((metadata if isinstance(metadata, dict) else {}).get("resourceVersion") or "")
        if revision:
            return {"revision": revision}
        return {"file": document.file, **({"line": document.line} if document.line else {})} if document.file else {}

    def workload(self, key: str) -> str:
        """The resource that declares a workload; empty where none does (a source of the registry, an imagined one)."""
        return next((found for kind in _WORKLOADS if (found := f"{kind} {key}") in self), "")

    def service(self, service: Service, cluster_domain: str) -> str:
        """The Service or ServiceEntry that defines a service; empty where a source does."""
        kinds = ("Service", "ServiceEntry") if split_service_host(service.host, cluster_domain) else ("ServiceEntry",)
        key = f"{service.namespace}/{service.name}"
        return next((found for kind in kinds if (found := f"{kind} {key}") in self), "")
