"""Kubernetes protobuf bodies: `kubectl create namespace|service|secret|role|...` and `kubectl auth` send nothing else.

A body is `k8s\\0` and a runtime.Unknown (1: typeMeta, 2: the message). Numbers are those of the generated.proto files
of k8s.io/api; a field that is not in the tables is refused by its number rather than lost. Answers are always JSON.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from .protobuf_wire import read_varint

MAGIC = b"k8s\x00"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
DEPTH_MAX = 30

# A field: (name, type). Types: str, bytes, int, bool (zero: absent), set_int, set_bool (pointers in Go: there or not),
# time, int_or_string, map, bytes_map, quantities, nothing (what the server writes itself), a message's name; a list of
# one type where the field is repeated.
Field = tuple[str, Any]
MESSAGES: dict[str, dict[int, Field]] = {
    "Meta": {
        1: ("name", "str"), 2: ("generateName", "str"), 3: ("namespace", "str"), 4: ("selfLink", "str"),
        5: ("uid", "str"), 6: ("resourceVersion", "str"), 7: ("generation", "int"), 8: ("creationTimestamp", "time"),
        9: ("deletionTimestamp", "time"), 10: ("deletionGracePeriodSeconds", "int"), 11: ("labels", "map"),
        12: ("annotations", "map"), 13: ("ownerReferences", ["OwnerReference"]), 14: ("finalizers", ["str"]),
    },
    "OwnerReference": {
        1: ("kind", "str"), 3: ("name", "str"), 4: ("uid", "str"), 5: ("apiVersion", "str"), 6: ("controller", "bool"),
        7: ("blockOwnerDeletion", "bool"),
    },
    "v1/Namespace": {1: ("metadata", "Meta"), 2: ("spec", "NamespaceSpec"), 3: ("status", "NamespaceStatus")},
    "NamespaceSpec": {1: ("finalizers", ["str"])},
    "NamespaceStatus": {1: ("phase", "str")},
    "v1/Secret": {
        1: ("metadata", "Meta"), 2: ("data", "bytes_map"), 3: ("type", "str"), 4: ("stringData", "map"),
        5: ("immutable", "bool"),
    },
    "v1/Service": {1: ("metadata", "Meta"), 2: ("spec", "ServiceSpec"), 3: ("status", "ServiceStatus")},
    "ServiceSpec": {
        1: ("ports", ["ServicePort"]), 2: ("selector", "map"), 3: ("clusterIP", "str"), 4: ("type", "str"),
        5: ("externalIPs", ["str"]), 7: ("sessionAffinity", "str"), 8: ("loadBalancerIP", "str"),
        9: ("loadBalancerSourceRanges", ["str"]), 10: ("externalName", "str"), 11: ("externalTrafficPolicy", "str"),
        12: ("healthCheckNodePort", "int"), 13: ("publishNotReadyAddresses", "bool"), 17: ("ipFamilyPolicy", "str"),
        18: ("clusterIPs", ["str"]), 19: ("ipFamilies", ["str"]), 20: ("allocateLoadBalancerNodePorts", "bool"),
        21: ("loadBalancerClass", "str"), 22: ("internalTrafficPolicy", "str"), 23: ("trafficDistribution", "str"),
    },
    "ServicePort": {
        1: ("name", "str"), 2: ("protocol", "str"), 3: ("port", "int"), 4: ("targetPort", "int_or_string"),
        5: ("nodePort", "int"), 6: ("appProtocol", "str"),
    },
    "ServiceStatus": {1: ("loadBalancer", "LoadBalancerStatus")},
    "LoadBalancerStatus": {},
    "rbac.authorization.k8s.io/v1/Role": {1: ("metadata", "Meta"), 2: ("rules", ["PolicyRule"])},
    "rbac.authorization.k8s.io/v1/ClusterRole": {1: ("metadata", "Meta"), 2: ("rules", ["PolicyRule"])},
    "PolicyRule": {
        1: ("verbs", ["str"]), 2: ("apiGroups", ["str"]), 3: ("resources", ["str"]), 4: ("resourceNames", ["str"]),
        5: ("nonResourceURLs", ["str"]),
    },
    "rbac.authorization.k8s.io/v1/RoleBinding": {
        1: ("metadata", "Meta"), 2: ("subjects", ["Subject"]), 3: ("roleRef", "RoleRef"),
    },
    "rbac.authorization.k8s.io/v1/ClusterRoleBinding": {
        1: ("metadata", "Meta"), 2: ("subjects", ["Subject"]), 3: ("roleRef", "RoleRef"),
    },
    "Subject": {1: ("kind", "str"), 2: ("apiGroup", "str"), 3: ("name", "str"), 4: ("namespace", "str")},
    "RoleRef": {1: ("apiGroup", "str"), 2: ("kind", "str"), 3: ("name", "str")},
    "networking.k8s.io/v1/Ingress": {
        1: ("metadata", "Meta"), 2: ("spec", "IngressSpec"), 3: ("status", "IngressStatus"),
    },
    "IngressSpec": {
        1: ("defaultBackend", "IngressBackend"), 2: ("tls", ["IngressTLS"]), 3: ("rules", ["IngressRule"]),
        4: ("ingressClassName", "str"),
    },
    "IngressBackend": {4: ("service", "IngressServiceBackend")},
    "IngressServiceBackend": {1: ("name", "str"), 2: ("port", "ServiceBackendPort")},
    "ServiceBackendPort": {1: ("name", "str"), 2: ("number", "int")},
    "IngressTLS": {1: ("hosts", ["str"]), 2: ("secretName", "str")},
    "IngressRule": {1: ("host", "str"), 2: ("ingressRuleValue", "IngressRuleValue")},
    "IngressRuleValue": {1: ("http", "HTTPIngressRuleValue")},
    "HTTPIngressRuleValue": {1: ("paths", ["HTTPIngressPath"])},
    "HTTPIngressPath": {1: ("path", "str"), 2: ("backend", "IngressBackend"), 3: ("pathType", "str")},
    "IngressStatus": {1: ("loadBalancer", "LoadBalancerStatus")},
    "v1/ConfigMap": {
        1: ("metadata", "Meta"), 2: ("data", "map"), 3: ("binaryData", "bytes_map"), 4: ("immutable", "bool"),
    },
    "v1/ServiceAccount": {
        1: ("metadata", "Meta"), 3: ("imagePullSecrets", ["LocalReference"]),
        4: ("automountServiceAccountToken", "set_bool"),
    },
    "LocalReference": {1: ("name", "str")},
    "v1/ResourceQuota": {1: ("metadata", "Meta"), 2: ("spec", "ResourceQuotaSpec"), 3: ("status", "nothing")},
    "ResourceQuotaSpec": {1: ("hard", "quantities"), 2: ("scopes", ["str"])},
    "scheduling.k8s.io/v1/PriorityClass": {
        1: ("metadata", "Meta"), 2: ("value", "set_int"), 3: ("globalDefault", "bool"), 4: ("description", "str"),
        5: ("preemptionPolicy", "str"),
    },
    "policy/v1/PodDisruptionBudget": {1: ("metadata", "Meta"), 2: ("spec", "BudgetSpec"), 3: ("status", "nothing")},
    "BudgetSpec": {
        1: ("minAvailable", "int_or_string"), 2: ("selector", "LabelSelector"), 3: ("maxUnavailable", "int_or_string"),
        4: ("unhealthyPodEvictionPolicy", "str"),
    },
    "LabelSelector": {1: ("matchLabels", "map"), 2: ("matchExpressions", ["LabelRequirement"])},
    "LabelRequirement": {1: ("key", "str"), 2: ("operator", "str"), 3: ("values", ["str"])},
    "apps/v1/Deployment": {1: ("metadata", "Meta"), 2: ("spec", "DeploymentSpec"), 3: ("status", "nothing")},
    "DeploymentSpec": {
        1: ("replicas", "set_int"), 2: ("selector", "LabelSelector"), 3: ("template", "PodTemplate"),
        4: ("strategy", "Strategy"), 5: ("minReadySeconds", "int"), 6: ("revisionHistoryLimit", "set_int"),
        7: ("paused", "bool"), 9: ("progressDeadlineSeconds", "set_int"),
    },
    "Strategy": {1: ("type", "str")},
    "batch/v1/Job": {1: ("metadata", "Meta"), 2: ("spec", "JobSpec"), 3: ("status", "nothing")},
    "JobSpec": {
        1: ("parallelism", "set_int"), 2: ("completions", "set_int"), 3: ("activeDeadlineSeconds", "set_int"),
        4: ("selector", "LabelSelector"), 5: ("manualSelector", "set_bool"), 6: ("template", "PodTemplate"),
        7: ("backoffLimit", "set_int"), 8: ("ttlSecondsAfterFinished", "set_int"), 9: ("completionMode", "str"),
        10: ("suspend", "set_bool"),
    },
    "batch/v1/CronJob": {1: ("metadata", "Meta"), 2: ("spec", "CronJobSpec"), 3: ("status", "nothing")},
    "CronJobSpec": {
        1: ("schedule", "str"), 2: ("startingDeadlineSeconds", "set_int"), 3: ("concurrencyPolicy", "str"),
        4: ("suspend", "set_bool"), 5: ("jobTemplate", "JobTemplate"), 6: ("successfulJobsHistoryLimit", "set_int"),
        7: ("failedJobsHistoryLimit", "set_int"), 8: ("timeZone", "str"),
    },
    "JobTemplate": {1: ("metadata", "Meta"), 2: ("spec", "JobSpec")},
    "PodTemplate": {1: ("metadata", "Meta"), 2: ("spec", "PodSpec")},
    "PodSpec": {
        2: ("containers", ["Container"]), 3: ("restartPolicy", "str"), 4: ("terminationGracePeriodSeconds", "set_int"),
        6: ("dnsPolicy", "str"), 7: ("nodeSelector", "map"), 8: ("serviceAccountName", "str"),
        9: ("serviceAccount", "str"), 10: ("nodeName", "str"), 11: ("hostNetwork", "bool"), 12: ("hostPID", "bool"),
        13: ("hostIPC", "bool"), 15: ("imagePullSecrets", ["LocalReference"]), 16: ("hostname", "str"),
        17: ("subdomain", "str"), 19: ("schedulerName", "str"), 24: ("priorityClassName", "str"),
    },
    "Container": {
        1: ("name", "str"), 2: ("image", "str"), 3: ("command", ["str"]), 4: ("args", ["str"]),
        5: ("workingDir", "str"), 6: ("ports", ["ContainerPort"]), 7: ("env", ["EnvVar"]),
        8: ("resources", "Resources"),
        13: ("terminationMessagePath", "str"), 14: ("imagePullPolicy", "str"), 16: ("stdin", "bool"),
        17: ("stdinOnce", "bool"), 18: ("tty", "bool"), 20: ("terminationMessagePolicy", "str"),
    },
    "ContainerPort": {
        1: ("name", "str"), 2: ("hostPort", "int"), 3: ("containerPort", "int"), 4: ("protocol", "str"),
        5: ("hostIP", "str"),
    },
    "EnvVar": {1: ("name", "str"), 2: ("value", "str")},
    "Resources": {1: ("limits", "quantities"), 2: ("requests", "quantities")},
    "authorization.k8s.io/v1/SelfSubjectAccessReview": {
        1: ("metadata", "Meta"), 2: ("spec", "AccessReviewSpec"), 3: ("status", "AccessReviewStatus"),
    },
    "AccessReviewSpec": {
        1: ("resourceAttributes", "ResourceAttributes"), 2: ("nonResourceAttributes", "PathAttributes"),
    },
    "ResourceAttributes": {
        1: ("namespace", "str"), 2: ("verb", "str"), 3: ("group", "str"), 4: ("version", "str"), 5: ("resource", "str"),
        6: ("subresource", "str"), 7: ("name", "str"),
    },
    "PathAttributes": {1: ("path", "str"), 2: ("verb", "str")},
    "AccessReviewStatus": {
        1: ("allowed", "bool"), 2: ("reason", "str"), 3: ("evaluationError", "str"), 4: ("denied", "bool"),
    },
    "authorization.k8s.io/v1/SelfSubjectRulesReview": {
        1: ("metadata", "Meta"), 2: ("spec", "RulesReviewSpec"), 3: ("status", "RulesReviewStatus"),
    },
    "RulesReviewSpec": {1: ("namespace", "str")},
    "RulesReviewStatus": {3: ("incomplete", "bool"), 4: ("evaluationError", "str")},
    "authentication.k8s.io/v1/SelfSubjectReview": {1: ("metadata", "Meta"), 2: ("status", "SelfSubjectReviewStatus")},
    "SelfSubjectReviewStatus": {1: ("userInfo", "UserInfo")},
    "UserInfo": {1: ("username", "str"), 2: ("uid", "str"), 3: ("groups", ["str"])},
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "int"), 2: ("preconditions", "Preconditions"), 3: ("orphanDependents", "bool"),
        4: ("propagationPolicy", "str"), 5: ("dryRun", ["str"]),
    },
    "Preconditions": {1: ("uid", "str"), 2: ("resourceVersion", "str")},
}  # fmt: skip
INLINE = {"ingressRuleValue"}
"""Embedded in Go, so that its fields stand beside the others in JSON."""
MAPS = ("map", "bytes_map", "quantities")
EMPTY_MEANS_ABSENT = ("str", "int", "bool", "time")
"""protobuf writes Go's zero values where JSON has `omitempty`."""


def decode(data: bytes) -> dict[str, Any]:
    """A body as the same object in JSON. Raises ValueError naming what is wrong."""
    if not data.startswith(MAGIC):
        raise ValueError("not a Kubernetes protobuf message")
    type_meta, raw = {"apiVersion": "", "kind": ""}, b""
    for number, value in fields(data[len(MAGIC) :]):
        if number == 1 and isinstance(value, bytes):
            for inner, text in fields(value):
                if inner in (1, 2) and isinstance(text, bytes):
                    type_meta["apiVersion" if inner == 1 else "kind"] = text.decode()
        elif number == 2 and isinstance(value, bytes):
            raw = value
        elif number == 3 and value:
            raise ValueError("an encoded message is not accepted")
    kind = type_meta["kind"]
    name = "DeleteOptions" if kind == "DeleteOptions" else f"{type_meta['apiVersion']}/{kind}"
    if name not in MESSAGES:
        raise ValueError(f"{name} is not accepted as protobuf; send JSON")
    return {**type_meta, **_message(name, raw, DEPTH_MAX)}


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of every field of a message. Raises ValueError."""
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = read_varint(data, position)
            yield number, value
        elif wire == 2:
            length, position = read_varint(data, position)
            if length > len(data) - position:
                raise ValueError("the message is cut short")
            yield number, data[position : position + length]
            position += length
        else:
            raise ValueError(f"field {number} has wire type {wire}, which is not used here")


def _message(name: str, data: bytes, depth: int) -> dict[str, Any]:
    if depth <= 0:
        raise ValueError("the message nests too deep")
    known, result = MESSAGES[name], {}
    for number, value in fields(data):
        if number not in known:
            raise ValueError(f"field {number} of {name} is not accepted as protobuf; send JSON")
        key, kind = known[number]
        if kind == "nothing":
            continue
        repeated = isinstance(kind, list)
        kind = kind[0] if repeated else kind
        read = _value(kind, value, depth)
        if key in INLINE:
            result.update(read)
        elif repeated:
            result.setdefault(key, []).append(read)
        elif kind in MAPS:
            result.setdefault(key, {}).update(read)
        elif not (kind in EMPTY_MEANS_ABSENT and not read):
            result[key] = read
    return result


def _value(kind: str, value: int | bytes, depth: int) -> Any:
    if kind in ("int", "bool", "set_int", "set_bool"):
        if not isinstance(value, int):
            raise ValueError("expected a number")
        return bool(value) if kind.endswith("bool") else value - 2**64 if value >= 2**63 else value
    if not isinstance(value, bytes):
        raise ValueError("expected a message or text")
    if kind == "str":
        return value.decode()
    if kind == "time":
        seconds = next((found for number, found in fields(value) if number == 1), 0)
        if not isinstance(seconds, int) or not 0 < seconds < 1 << 37:
            return ""
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if kind == "int_or_string":
        parts = dict(fields(value))
        text, number = parts.get(3, b""), parts.get(2, 0)
        if not isinstance(text, bytes) or not isinstance(number, int):
            raise ValueError("expected a number or text")
        return text.decode() if parts.get(1) == 1 else number
    if kind in MAPS:
        entry = dict(fields(value))
        key, item = entry.get(1, b""), entry.get(2, b"")
        if not isinstance(key, bytes) or not isinstance(item, bytes):
            raise ValueError("expected a map of text")
        if kind == "quantities":
            item = dict(fields(item)).get(1, b"")
            if not isinstance(item, bytes):
                raise ValueError("expected a quantity")
        return {key.decode(): base64.b64encode(item).decode() if kind == "bytes_map" else item.decode()}
    return _message(kind, value, depth - 1)
