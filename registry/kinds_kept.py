"""Kinds of Kubernetes that start, store or scale things, which Fairlead does not: taken, kept and shown.

Manifests that people have hold them beside Services and rules, and are to be applied as they are. Each document gets
one warning that says what is to be done instead. What their pod templates say of labels helps `fairlead validate`: a
selector may select what will be started.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .kinds import NO_STATUS, Kind, kind
from .schema import STRINGS, Node, flag, int_or_text, integer, items, obj, text

_STARTS = (
    "is kept, and nothing is started: Fairlead starts no processes. Start the app by `fairlead run -- COMMAND` (or by "
    "your own supervisor, beside `fairlead sidecar`), and declare each instance as a Pod or WorkloadEntry, or register "
    "it in Consul or etcd"
)
_STORES = "is kept, and nothing acts by it: Fairlead manages no storage. Give the app its files where it runs"
_SCALES = "is kept, and nothing acts by it: Fairlead starts no instances. Whoever starts them decides how many"
_BOUNDS = "is kept, and nothing acts by it: Fairlead gives out no processors, memory or places to run on"

_ENDPOINTS = (
    "is kept, and nobody is sent there: write an EndpointSlice (discovery.k8s.io/v1) with the label "
    "kubernetes.io/service-name instead"
)
_NODES = "is kept, and nothing acts by it: Fairlead places nothing on nodes"

_TEMPLATE = obj(
    "What each instance would be.",
    metadata=obj("Its labels and annotations.", open="-"),
    spec=obj("Its containers.", open="-"),
)
_SELECTOR = obj("Its instances, by label.", matchLabels=STRINGS, matchExpressions=items(obj(open="-")))


def _runs(doc: str, *required: str, **more: Node) -> Node:
    """Something with a pod template; beside what is listed, any field of the upstream kind is taken."""
    return obj(doc, required=("spec",), status=NO_STATUS, spec=obj(
        "How it is to run.", required=required, open="-", also={"template": _TEMPLATE, **more},
    ))  # fmt: skip


_REPLICAS = integer("How many instances.", 0)
_DEPLOYMENT = _runs("Instances of an app, replaced step by step.", "selector", "template", replicas=_REPLICAS,
                    selector=_SELECTOR)  # fmt: skip
_STATEFUL_SET = _runs("Instances with names of their own.", "selector", "template", replicas=_REPLICAS,
                      selector=_SELECTOR, serviceName=text("Headless service of their own names."))  # fmt: skip
_DAEMON_SET = _runs("An instance on each node.", "selector", "template", selector=_SELECTOR)
_REPLICA_SET = _runs("A number of instances.", "selector", replicas=_REPLICAS, selector=_SELECTOR)
_CONTROLLER = _runs("A number of instances.", replicas=_REPLICAS, selector=STRINGS)
_JOB = _runs("Something that runs to its end.", "template")
_CRON_JOB = obj("Jobs by the clock.", required=("spec",), status=NO_STATUS, spec=obj(
    "When, and what.", required=("schedule", "jobTemplate"), open="-", schedule=text("As in crontab(5)."),
    jobTemplate=obj("The job.", metadata=obj("Its labels and annotations.", open="-"),
                    spec=obj("How it is to run.", open="-", template=_TEMPLATE)),
))  # fmt: skip
_ANY_SPEC = obj("Kept as it is.", spec=obj("Any fields of the upstream kind.", open="-"), status=NO_STATUS)
_SCALER = obj("How many instances there are to be.", required=("spec",), status=NO_STATUS, spec=obj(
    "Bounds and measures.", required=("scaleTargetRef", "maxReplicas"), open="-",
    scaleTargetRef=obj("What is scaled.", open="-"), minReplicas=integer("At least.", 0),
    maxReplicas=integer("At most.", 1),
))  # fmt: skip
_BUDGET = obj("How many instances may be stopped at a time.", status=NO_STATUS, spec=obj(
    "Bounds.", minAvailable=int_or_text("So many must run, as a number or a percentage."),
    maxUnavailable=int_or_text("So many may be away, as a number or a percentage."), selector=_SELECTOR,
    unhealthyPodEvictionPolicy=text("When instances that are not ready may be stopped."),
))  # fmt: skip
_STORAGE_CLASS = obj("A kind of storage.", required=("provisioner",), open="-", provisioner=text("Who provides it."))
_PRIORITY_CLASS = obj("How important instances are.", required=("value",), value=integer("Higher comes first."),
                      globalDefault=flag("For those that name no class."),
                      description=text("For people."),
                      preemptionPolicy=text("Whether others are stopped for it."))  # fmt: skip

_ALL = ("all",)
KEPT_KINDS: tuple[Kind, ...] = (
    kind("apps", "v1", "Deployment", "deployments", _DEPLOYMENT, "deploy", inert=_STARTS, categories=_ALL),
    kind("apps", "v1", "StatefulSet", "statefulsets", _STATEFUL_SET, "sts", inert=_STARTS, categories=_ALL),
    kind("apps", "v1", "DaemonSet", "daemonsets", _DAEMON_SET, "ds", inert=_STARTS, categories=_ALL),
    kind("apps", "v1", "ReplicaSet", "replicasets", _REPLICA_SET, "rs", inert=_STARTS, categories=_ALL),
    kind("", "v1", "ReplicationController", "replicationcontrollers", _CONTROLLER, "rc", inert=_STARTS,
         categories=_ALL),
    kind("batch", "v1", "Job", "jobs", _JOB, inert=_STARTS, categories=_ALL),
    kind("batch", "v1", "CronJob", "cronjobs", _CRON_JOB, "cj", inert=_STARTS, categories=_ALL),
    kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", _ANY_SPEC, "pvc", inert=_STORES),
    kind("", "v1", "PersistentVolume", "persistentvolumes", _ANY_SPEC, "pv", namespaced=False, inert=_STORES),
    kind("storage.k8s.io", "v1", "StorageClass", "storageclasses", _STORAGE_CLASS, "sc", namespaced=False,
         inert=_STORES),
    kind("autoscaling", "v2 v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", _SCALER, "hpa", inert=_SCALES,
         categories=_ALL),
    kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", _BUDGET, "pdb", inert=_SCALES),
    kind("", "v1", "Endpoints", "endpoints", obj("Addresses, as before EndpointSlices.", open="-"), "ep",
         inert=_ENDPOINTS),
    kind("", "v1", "Node", "nodes", _ANY_SPEC, "no", namespaced=False, inert=_NODES),
    kind("", "v1", "LimitRange", "limitranges", _ANY_SPEC, "limits", inert=_BOUNDS),
    kind("", "v1", "ResourceQuota", "resourcequotas", _ANY_SPEC, "quota", inert=_BOUNDS),
    kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", _PRIORITY_CLASS, "pc", namespaced=False,
         inert=_BOUNDS),
)  # fmt: skip
_RUNNING = frozenset(one.kind for one in KEPT_KINDS if one.inert is _STARTS)


def template_labels(name: str, body: Mapping[str, Any]) -> dict[str, str] | None:
    """The labels that instances of a Deployment and the like would have; None for other kinds."""
    if name not in _RUNNING:
        return None
    at: Any = body
    for step in (("spec", "jobTemplate") if name == "CronJob" else ()) + ("spec", "template", "metadata", "labels"):
        at = at.get(step) if isinstance(at, Mapping) else None
    return {str(key): str(value) for key, value in at.items()} if isinstance(at, Mapping) else {}
