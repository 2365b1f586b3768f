"""Kinds of objects: their names in every form, and their schemas; here those that state facts.

Field lists follow the Kubernetes API (v1.32) and Istio's networking API.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from .schema import (
    STRINGS,
    TEXTS,
    Node,
    anything,
    elsewhere,
    flag,
    int_or_text,
    integer,
    items,
    obj,
    table,
    text,
    unused,
)

PORT = integer("A port, 1 to 65535.", 1, 65535)
PROTOCOL = text("TCP, UDP or SCTP.", "TCP", "UDP", "SCTP")
NO_STATUS = obj("Written by whoever runs the object; kept as it is.", open="-")


class Kind(Struct, frozen=True):
    """One kind of object."""

    group: str
    versions: tuple[str, ...]
    """The preferred one first; they differ in name only."""
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    namespaced: bool
    schema: Node
    """Of the object without apiVersion, kind and metadata."""
    categories: tuple[str, ...] = ()
    inert: str = ""
    """Why nothing acts by this kind yet; a warning for each document."""

    @property
    def api_versions(self) -> tuple[str, ...]:
        return tuple(f"{self.group}/{version}" if self.group else version for version in self.versions)

    @property
    def name(self) -> str:
        """`virtualservices.networking.istio.io`, `services`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def kind(
    group: str,
    versions: str,
    name: str,
    plural: str,
    schema: Node,
    short: str = "",
    namespaced: bool = True,
    **more: Any,
) -> Kind:
    names = (name, plural, name.lower(), tuple(short.split()))
    return Kind(group, tuple(versions.split()), *names, namespaced, schema, **more)


_BALANCER = "there is no cloud load balancer, node port or topology of nodes here"


def _probe(doc: str) -> Node:
    """A Kubernetes Probe; what is wrong with its meaning is told by `checks.container_checks`."""
    header = obj(required=("name",), name=text("Name of the header."), value=text("Its value."))
    port = int_or_text("Number or name of the container's port.")
    grace = unused(integer(), "--drain-deadline of the sidecar is what an app is given to end")
    return obj(
        doc,
        one_of=(("httpGet", "tcpSocket", "exec", "grpc"),),
        httpGet=obj(
            "Passes with a status of 200 to 399.", required=("port",), port=port, path=text("Path; default /."),
            host=text("Default: where the app listens."), scheme=text("HTTP or HTTPS.", "HTTP", "HTTPS", ""),
            httpHeaders=items(header, doc="Headers to send."),
        ),
        tcpSocket=obj("Passes when connected.", required=("port",), port=port,
                      host=text("Default: where the app listens.")),
        exec_=obj("Passes with exit code 0.", command=items(text(), doc="The program and its arguments; no shell.")),
        grpc=obj("Passes when grpc.health.v1 says SERVING.", required=("port",), port=PORT,
                 service=text("Service to ask about; default: the server.")),
        initialDelaySeconds=integer("Seconds after the app's start; default 0.", 0),
        periodSeconds=integer("Seconds between checks; default 10.", 0),
        timeoutSeconds=integer("Seconds for one check; default 1.", 0),
        successThreshold=integer("Successes in a row; default 1.", 0),
        failureThreshold=integer("Failures in a row; default 3.", 0),
        terminationGracePeriodSeconds=grace,
    )  # fmt: skip


_POD_DETAILS = elsewhere(
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy",
    "ephemeralContainers", "hostAliases", "hostIPC", "hostPID", "hostUsers", "hostnameOverride",
    "imagePullSecrets", "initContainers", "nodeName", "nodeSelector", "os", "overhead", "preemptionPolicy", "priority",
    "priorityClassName", "readinessGates", "resourceClaims", "resources", "restartPolicy", "runtimeClassName",
    "schedulerName", "schedulingGates", "securityContext", "setHostnameAsFQDN", "shareProcessNamespace",
    "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes",
)  # fmt: skip
_CONTAINER_DETAILS = elsewhere(
    "args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "resizePolicy", "resources",
    "restartPolicy", "restartPolicyRules", "securityContext", "stdin", "stdinOnce", "terminationMessagePath",
    "terminationMessagePolicy", "tty", "volumeDevices", "volumeMounts", "workingDir",
)  # fmt: skip

NAMESPACE = obj("A namespace; its labels are what namespaceSelector looks at.",
                spec=obj(open="-"), status=NO_STATUS)  # fmt: skip

SERVICE = obj(
    "A name with ports.",
    spec=obj(
        "What the service is.",
        type=text("Kind of service.", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
        selector=table(text(), "Workloads of the namespace with all these labels are the endpoints."),
        ports=items(
            obj(
                "A port of the service.",
                required=("port",),
                name=text("Name; needed where there are several."),
                port=integer("Port that clients dial.", 1, 65535),
                targetPort=int_or_text("Number or name of the workload's port; default: the same as port."),
                protocol=PROTOCOL,
                appProtocol=text("http, http2, grpc, https, tls, tcp ...; else the port's name tells."),
                nodePort=unused(integer(), "there are no node ports here"),
            )
        ),
        clusterIP=text("Virtual address; None: headless."),
        clusterIPs=items(text(), doc="Virtual addresses of both families."),
        externalName=text("Of type ExternalName: the name that this one is an alias of."),
        publishNotReadyAddresses=flag("Take workloads that are not ready as endpoints, too."),
        trafficDistribution=text(
            "PreferClose: DNS gives the endpoints nearest to who asks first.",
            "PreferClose",
            "PreferSameZone",
            "PreferSameNode",
        ),
        sessionAffinity=text("ClientIP: a client keeps its endpoint; default None.", "None", "ClientIP"),
        sessionAffinityConfig=obj(
            "Of sessionAffinity ClientIP.",
            clientIP=obj(
                "How long a client keeps its endpoint.",
                timeoutSeconds=unused(
                    integer("Seconds.", 1, 86400),
                    "nothing is remembered: a client keeps its endpoint for as long as the endpoints stay the same",
                ),
            ),
        ),
        also={
            **elsewhere("ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy", "allocateLoadBalancerNodePorts"),
            **{
                name: unused(anything(), _BALANCER)
                for name in (
                    "externalIPs",
                    "externalTrafficPolicy",
                    "healthCheckNodePort",
                    "loadBalancerClass",
                    "loadBalancerIP",
                    "loadBalancerSourceRanges",
                )
            },
        },
    ),
    status=NO_STATUS,
)

POD = obj(
    "A workload: one running instance of an app.",
    spec=obj(
        "What runs.",
        serviceAccountName=text("Name in the workload's identity."),
        serviceAccount=text("Old name of serviceAccountName."),
        hostname=text("Own name below a headless service."),
        subdomain=text("Headless service below which the hostname stands."),
        hostNetwork=flag("The workload has the host's address."),
        enableServiceLinks=flag(
            "`fairlead env --workload` gives it the variables of its namespace's services; default true."
        ),
        containers=items(
            obj(
                "A container.",
                name=text("Name."),
                ports=items(
                    obj(
                        "A port that the app listens on.",
                        required=("containerPort",),
                        name=text("Name, for targetPort and NetworkPolicy."),
                        containerPort=PORT,
                        protocol=PROTOCOL,
                        hostPort=unused(integer(), "there are no host ports here"),
                        hostIP=unused(text(), "there are no host ports here"),
                    )
                ),
                readinessProbe=_probe("Whether it takes traffic now; its sidecar checks."),
                livenessProbe=_probe("Whether it must be restarted (`fairlead run --restart`)."),
                startupProbe=_probe("Whether it is through with starting; the others wait for it."),
                also=_CONTAINER_DETAILS,
            )
        ),
        also=_POD_DETAILS,
    ),
    status=obj(
        "What is known of it.",
        podIP=text("Address."),
        podIPs=items(obj(ip=text("Address."))),
        phase=text("Pending, Running, Succeeded, Failed."),
        conditions=items(obj(open="-")),
        open="-",
    ),
)

SECRET = obj("Kept for those that refer to it.", data=STRINGS, stringData=STRINGS, type=text(), immutable=flag())
CONFIG_MAP = obj("Kept for those that refer to it.", data=STRINGS, binaryData=STRINGS, immutable=flag())
SERVICE_ACCOUNT = obj("The account of an identity.", secrets=items(anything()), imagePullSecrets=items(anything()),
                      automountServiceAccountToken=flag())  # fmt: skip

ENDPOINT_SLICE = obj(
    "Endpoints of a service (label kubernetes.io/service-name).",
    required=("addressType", "endpoints"),
    addressType=text("Family of the addresses.", "IPv4", "IPv6", "FQDN"),
    endpoints=items(
        obj(
            "An endpoint.",
            required=("addresses",),
            addresses=items(text(), 1, "Its addresses."),
            conditions=obj("Its state.", ready=flag("Absent is true."), serving=flag(), terminating=flag()),
            hostname=text("Own name below a headless service."),
            nodeName=text("Node that it is on."),
            zone=text("Zone that it is in."),
            targetRef=obj("The workload.", kind=text(), name=text(), namespace=text(), uid=text(), apiVersion=text(),
                          resourceVersion=text(), fieldPath=text()),
            deprecatedTopology=unused(STRINGS, "use zone and nodeName"),
            hints=unused(obj(open="-"), "clients choose by locality themselves"),
        )
    ),
    ports=items(obj("A port.", name=text(), port=PORT, protocol=PROTOCOL, appProtocol=text())),
)  # fmt: skip

WORKLOAD_ENTRY_SPEC = obj(
    "A workload outside any orchestrator.",
    address=text("Its address."),
    ports=table(PORT, "Ports by name."),
    labels=STRINGS,
    network=unused(text(), "there is one network"),
    locality=text("region/zone/subzone"),
    weight=integer("Share of traffic.", 0, 4294967295),
    serviceAccount=text("Name in its identity."),
)
WORKLOAD_ENTRY = obj("A workload.", required=("spec",), spec=WORKLOAD_ENTRY_SPEC, status=NO_STATUS)
WORKLOAD_GROUP = obj(
    "What workloads of one service account that nothing declares one by one may be.",
    required=("spec",),
    spec=obj(
        "What its members are.",
        required=("template",),
        metadata=obj("Of its members.", labels=STRINGS, annotations=unused(STRINGS, "nothing looks at them")),
        template=obj(
            "As a WorkloadEntry; the address is each member's own.",
            address=unused(text(), "each member has its own"),
            ports=table(PORT, "Ports by name."),
            labels=STRINGS,
            network=unused(text(), "there is one network"),
            locality=text("region/zone/subzone"),
            weight=integer("Share of traffic.", 0, 4294967295),
            serviceAccount=text("Account that members must prove (default: default)."),
        ),
        probe=_probe("Whether a member takes traffic now; its sidecar checks."),
    ),
    status=NO_STATUS,
)

ENTRY_PROTOCOLS = ("HTTP", "HTTPS", "GRPC", "HTTP2", "MONGO", "TCP", "TLS", "GRPC-WEB", "REDIS", "MYSQL", "UDP")
SERVICE_ENTRY = obj(
    "A service that nothing else registers.",
    required=("spec",),
    spec=obj(
        "What it is.",
        required=("hosts",),
        hosts=items(text(), 1, "Its names."),
        addresses=items(text(), doc="Virtual addresses or ranges."),
        ports=items(
            obj(
                "A port.",
                required=("number", "name"),
                number=PORT,
                name=text("Name."),
                protocol=text("Protocol."),
                targetPort=PORT,
            )
        ),
        location=text("Inside the mesh or outside.", "MESH_EXTERNAL", "MESH_INTERNAL"),
        resolution=text("How addresses are found.", "NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"),
        endpoints=items(WORKLOAD_ENTRY_SPEC),
        workloadSelector=obj("Workloads of the namespace.", labels=STRINGS),
        exportTo=items(text(), doc="Namespaces that see it."),
        subjectAltNames=TEXTS,
    ),
    status=NO_STATUS,
)

FACT_KINDS: tuple[Kind, ...] = (
    kind("", "v1", "Namespace", "namespaces", NAMESPACE, "ns", namespaced=False),
    kind("", "v1", "Service", "services", SERVICE, "svc", categories=("all",)),
    kind("", "v1", "Pod", "pods", POD, "po", categories=("all",)),
    kind("", "v1", "Secret", "secrets", SECRET),
    kind("", "v1", "ConfigMap", "configmaps", CONFIG_MAP, "cm"),
    kind("", "v1", "ServiceAccount", "serviceaccounts", SERVICE_ACCOUNT, "sa"),
    kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", ENDPOINT_SLICE),
    kind("networking.istio.io", "v1 v1beta1 v1alpha3", "ServiceEntry", "serviceentries", SERVICE_ENTRY, "se",
         categories=("istio-io", "networking-istio-io")),
    kind("networking.istio.io", "v1 v1beta1 v1alpha3", "WorkloadEntry", "workloadentries", WORKLOAD_ENTRY, "we",
         categories=("istio-io", "networking-istio-io")),
    kind("networking.istio.io", "v1 v1beta1 v1alpha3", "WorkloadGroup", "workloadgroups", WORKLOAD_GROUP, "wg",
         categories=("istio-io", "networking-istio-io")),
)  # fmt: skip
