# ruff: noqa: E501  (tables of fields read best with one field a line)
"""The kinds that state rules, and the table of all kinds.

Field lists follow Istio's networking and security APIs and the Kubernetes API. A field that Fairlead does not carry out
is either refused, with the reason, or taken with a warning that says that it has no effect.
Long because one page shows every field of every kind of rule.
"""

from __future__ import annotations

from ..registry.kinds import ENTRY_PROTOCOLS, FACT_KINDS, NO_STATUS, PORT, PROTOCOL, Kind, kind
from ..registry.kinds_kept import KEPT_KINDS
from ..registry.schema import (
    STRINGS,
    TEXTS,
    anything,
    decimal,
    duration,
    flag,
    int_or_text,
    integer,
    items,
    obj,
    refused,
    table,
    text,
    unused,
)

COUNT = integer("A count; 0 is no limit.", 0, 2**31 - 1)
MATCH = obj("How a text must be.", one_of=(("exact", "prefix", "regex"),), exact=text("The whole text."),
            prefix=text("How it begins."), regex=text("RE2, the whole text."))  # fmt: skip
PERCENT = obj("A percentage.", value=decimal("0, or 0.0001 to 100.", 0, 100))
PORT_SELECTOR = obj("A port.", number=integer("Number of the service port.", 0, 65535))
DESTINATION = obj("Where to.", required=("host",), host=text("Service name or host."), subset=text("Subset of the DestinationRule."),
                  port=PORT_SELECTOR)  # fmt: skip
OPERATIONS = obj("Header changes: remove, then set, then add.", set=STRINGS, add=STRINGS, remove=TEXTS)
HEADERS = obj("Header changes.", request=OPERATIONS, response=OPERATIONS)
HTTP_MATCH = obj(
    "Conditions that must all hold.",
    name=text(),
    uri=MATCH,
    scheme=MATCH,
    method=MATCH,
    authority=MATCH,
    headers=table(MATCH),
    withoutHeaders=table(MATCH),
    queryParams=table(MATCH),
    ignoreUriCase=flag(),
    port=integer("Port that the client dialled.", 0, 65535),
    sourceLabels=STRINGS,
    sourceNamespace=text(),
    gateways=TEXTS,
    statPrefix=unused(text(), "metrics are by service"),
)
RETRIES = obj(
    "When to try again.",
    attempts=integer("Tries after the first.", 0),
    perTryTimeout=duration(),
    retryOn=text("Comma list of conditions, without blanks."),
    backoff=duration(),
    retryRemoteLocalities=flag("After two tries, go on where none was made: to further priorities of endpoints."),
    retryIgnorePreviousHosts=flag(),
)
CORS = obj(
    "Cross-origin rules.",
    allowOrigin=refused("use allowOrigins"),
    allowOrigins=items(MATCH),
    allowMethods=TEXTS,
    allowHeaders=TEXTS,
    exposeHeaders=TEXTS,
    maxAge=duration("", 1.0),
    allowCredentials=flag(),
    unmatchedPreflights=text("", "UNSPECIFIED", "FORWARD", "IGNORE"),
)
HTTP_ROUTE = obj(
    "A rule for HTTP requests; the first that matches counts.",
    one_of=(("mirror", "mirrors"),),
    name=text(),
    match=items(HTTP_MATCH),
    route=items(obj("A share of the traffic.", required=("destination",), destination=DESTINATION,
                    weight=integer("Share of the sum of weights.", 0), headers=HEADERS)),
    redirect=obj(
        "Answer with a redirect.",
        one_of=(("port", "derivePort"), ("uri", "prefixRewrite")),
        uri=text(),
        prefixRewrite=text(),
        authority=text(),
        port=PORT,
        derivePort=text("", "FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"),
        scheme=text("", "http", "https"),
        redirectCode=integer("301, 302, 303, 307 or 308.", 300, 399),
    ),
    directResponse=obj("Answer at once.", required=("status",), status=integer("", 200, 599),
                       body=obj(one_of=(("string", "bytes"),), string=text(), bytes=text("Base64."))),
    delegate=obj("Another VirtualService goes on.", name=text(), namespace=text()),
    rewrite=obj("Change path or host.", one_of=(("uri", "uriRegexRewrite"),), uri=text(), authority=text(),
                uriRegexRewrite=obj(match=text(), rewrite=text())),
    timeout=duration("Of the whole request with its retries."),
    retries=RETRIES,
    fault=obj(
        "Faults put in on purpose.",
        delay=obj(fixedDelay=duration(), percentage=PERCENT, percent=integer("", 0, 100),
                  exponentialDelay=refused("it is not supported upstream either")),
        abort=obj(one_of=(("httpStatus", "grpcStatus"),), httpStatus=integer("", 200, 599),
                  grpcStatus=text("Name of a gRPC status, such as UNAVAILABLE."),
                  http2Error=refused("it is not supported upstream either"), percentage=PERCENT),
    ),
    mirror=DESTINATION,
    mirrors=items(obj("A copy.", required=("destination",), destination=DESTINATION, percentage=PERCENT)),
    mirrorPercentage=PERCENT,
    mirrorPercent=integer("", 0, 100),
    corsPolicy=CORS,
    headers=HEADERS,
)  # fmt: skip
L4_ROUTE = items(obj(required=("destination",), destination=DESTINATION, weight=integer("", 0)))
VIRTUAL_SERVICE = obj(
    "How requests to hosts are routed.",
    required=("spec",),
    spec=obj(
        "Rules.",
        hosts=items(text(), doc="Names that clients use."),
        gateways=items(text(), doc="Where the rules apply; default: mesh (all sidecars)."),
        http=items(HTTP_ROUTE),
        tls=items(
            obj(
                match=items(obj(sniHosts=TEXTS, destinationSubnets=TEXTS, port=integer("", 0, 65535),
                                sourceLabels=STRINGS, gateways=TEXTS, sourceNamespace=text())),
                route=L4_ROUTE,
            )
        ),
        tcp=items(
            obj(
                match=items(obj(destinationSubnets=TEXTS, port=integer("", 0, 65535), sourceLabels=STRINGS,
                                gateways=TEXTS, sourceNamespace=text(), sourceSubnet=text())),
                route=L4_ROUTE,
            )
        ),
        exportTo=TEXTS,
    ),
    status=NO_STATUS,
)  # fmt: skip

LOCALITY_SETTING = obj(
    "By place.",
    distribute=items(obj("Shares for clients of one locality; the first entry that covers the client counts.", required=("from", "to"),
                         from_=text("Locality of the client: REGION/ZONE/SUBZONE, or less of it, or with * as its last part."),
                         to=table(integer("Percent.", 1, 100), "Percent by locality of the endpoints; the sum is 100."))),
    failover=items(obj("Where a region's traffic goes when its own endpoints fail.", required=("from", "to"),
                       from_=text("Region of the client."), to=text("Region."))),
    failoverPriority=TEXTS,
    enabled=flag(),
)  # fmt: skip
LOAD_BALANCER = obj(
    "Which endpoint is next.",
    one_of=(("simple", "consistentHash"),),
    simple=text("LEAST_REQUEST (default), ROUND_ROBIN, RANDOM, PASSTHROUGH or, of Fairlead's own, PEAK_EWMA.", "UNSPECIFIED",
                "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST", "PEAK_EWMA"),
    consistentHash=obj(
        "Always the same endpoint for the same key.",
        one_of=(("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"), ("ringHash", "maglev")),
        httpHeaderName=text(),
        httpCookie=obj(required=("name",), name=text(), path=text(), ttl=duration("0s: session cookie.", 0.0),
                       attributes=unused(items(anything()), "cookies get HttpOnly and their path")),
        useSourceIp=flag(),
        httpQueryParameterName=text(),
        ringHash=obj(minimumRingSize=integer("", 1, 8388608)),
        maglev=obj(tableSize=integer("A prime.", 1, 5000011)),
        minimumRingSize=integer("Old form of ringHash.minimumRingSize.", 1, 8388608),
    ),
    localityLbSetting=LOCALITY_SETTING,
    zoneAwareLbSetting=refused("use localityLbSetting"),
    warmup=obj("New endpoints begin with a part of their share.", required=("duration",), duration=duration("Until the full share."),
               minimumPercent=decimal("What they begin with; default 10.", 0, 100),
               aggression=decimal("1 (default) grows evenly, more is faster at first.", 0)),
    warmupDurationSecs=duration("Old form of warmup.duration."),
)  # fmt: skip
POOL = obj(
    "Limits of connections and requests.",
    tcp=obj(
        maxConnections=COUNT,
        connectTimeout=duration(),
        tcpKeepalive=obj(probes=COUNT, time=duration(), interval=duration()),
        maxConnectionDuration=duration(),
        idleTimeout=duration("", 0.0),
    ),
    http=obj(
        http1MaxPendingRequests=COUNT,
        http2MaxRequests=COUNT,
        maxRequestsPerConnection=COUNT,
        maxRetries=COUNT,
        idleTimeout=duration(),
        h2UpgradePolicy=text(
            "UPGRADE: HTTP/2 to the endpoints, whatever the port declares.", "DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"
        ),
        useClientProtocol=flag("Speak to endpoints what the client speaks."),
        maxConcurrentStreams=integer("Streams of one HTTP/2 connection; 0 is no limit.", 0, 2**31 - 1),
        http2KeepAlive=obj(
            "Ask HTTP/2 connections by PING; without it after 60 s of silence.",
            required=("interval", "timeout"),
            interval=duration("How often, to the second."),
            timeout=duration("For the answer, to the second."),
        ),
    ),
)
OUTLIER = obj(
    "When an endpoint is taken out.",
    consecutiveErrors=unused(integer("", 0), "use consecutive5xxErrors"),
    splitExternalLocalOriginErrors=flag(),
    consecutiveLocalOriginFailures=integer("", 0, 2**32 - 1),
    consecutiveGatewayErrors=integer("", 0, 2**32 - 1),
    consecutive5xxErrors=integer("", 0, 2**32 - 1),
    interval=duration(),
    baseEjectionTime=duration(),
    maxEjectionPercent=integer("", 0, 100),
    minHealthPercent=integer("", 0, 100),
    outlierDetectionHttpErrorCodes=items(integer("", 100, 599), doc="Answers that count as errors; default: 5xx."),
    successRateMinimumHosts=integer(
        "Fairlead's own, as in Envoy: endpoints that must have the volume; default 5.", 1, 2**32 - 1
    ),
    successRateRequestVolume=integer(
        "Fairlead's own, as in Envoy: answers in an interval that it takes to be judged; default 100.", 1, 2**32 - 1
    ),
    successRateStdevFactor=integer(
        "Fairlead's own, as in Envoy: out below mean - stdev * this / 1000; default 1900.", 0, 2**32 - 1
    ),
)
CLIENT_TLS = obj(
    "How connections to endpoints are secured.",
    mode=text("", "DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"),
    clientCertificate=text(),
    privateKey=text(),
    caCertificates=text(),
    credentialName=text(
        "Secret in place of files: at gateways one of their namespace; at sidecars only with workloadSelector."
    ),
    subjectAltNames=TEXTS,
    sni=text(),
    insecureSkipVerify=flag(),
    caCrl=text("File with lists of revoked certificates, one of each authority in the server's chain."),
)
POLICY = {"loadBalancer": LOAD_BALANCER, "connectionPool": POOL, "outlierDetection": OUTLIER, "tls": CLIENT_TLS}
TRAFFIC_POLICY = obj(
    "How the service is used.",
    also=POLICY,
    portLevelSettings=items(obj("For one port, in place of all above.", port=PORT_SELECTOR, also=POLICY)),
    tunnel=obj("TCP and TLS connections go on through the endpoint, an HTTP proxy.", required=("targetHost", "targetPort"),
               protocol=text("CONNECT, the default; POST is refused."), targetHost=text("Where to: a full name or an IP address."),
               targetPort=PORT),
    proxyProtocol=obj("Tell endpoints by the PROXY protocol who the client is.", version=text("V1 (text, the default) or V2 (binary).", "V1", "V2")),
    retryBudget=obj("Retries at a time, as a share of requests; takes the place of maxRetries.",
                    percent=decimal("Of the requests in flight; default 20.", 0, 100),
                    minRetryConcurrency=integer("Always allowed; default 3.", 0)),
)  # fmt: skip
LABEL_SELECTOR = obj("Workloads by labels.", matchLabels=STRINGS)
DESTINATION_RULE = obj(
    "How a service is used once it is chosen.",
    required=("spec",),
    spec=obj(
        "The rule.",
        required=("host",),
        host=text("Service name or host; may begin with a star."),
        trafficPolicy=TRAFFIC_POLICY,
        subsets=items(obj("Endpoints with these labels.", required=("name",), name=text(), labels=STRINGS,
                          trafficPolicy=TRAFFIC_POLICY)),
        exportTo=TEXTS,
        workloadSelector=LABEL_SELECTOR,
    ),
    status=NO_STATUS,
)  # fmt: skip

SELECTOR = obj(
    "Labels; empty selects everything.",
    matchLabels=STRINGS,
    matchExpressions=items(obj(required=("key", "operator"), key=text(),
                               operator=text(), values=TEXTS)),
)  # fmt: skip
PEERS = items(obj("A peer: selectors, or an ipBlock.", podSelector=SELECTOR, namespaceSelector=SELECTOR,
                  ipBlock=obj(required=("cidr",), cidr=text(), except_=TEXTS)))  # fmt: skip
POLICY_PORTS = items(obj("A port of the workload.", protocol=PROTOCOL, port=int_or_text(), endPort=PORT))
NETWORK_POLICY = obj(
    "Who may reach whom.",
    required=("spec",),
    spec=obj(
        "The policy.",
        podSelector=SELECTOR,
        ingress=items(obj("Who may come in.", from_=PEERS, ports=POLICY_PORTS)),
        egress=items(obj("Where they may go.", to=PEERS, ports=POLICY_PORTS)),
        policyTypes=items(text("", "Ingress", "Egress")),
    ),
    status=NO_STATUS,
)

MTLS = obj("Mutual TLS.", mode=text("", "UNSET", "DISABLE", "PERMISSIVE", "STRICT"))
PEER_AUTHENTICATION = obj(
    "Whether peers must come by mutual TLS.",
    spec=obj("The rule.", selector=LABEL_SELECTOR, mtls=MTLS, portLevelMtls=table(MTLS, "By workload port.")),
    status=NO_STATUS,
)
_NEGATED = ("principals", "requestPrincipals", "namespaces", "serviceAccounts", "ipBlocks", "remoteIpBlocks")
SOURCE = obj(
    "Who asks.",
    also={name: TEXTS for plain in _NEGATED for name in (plain, f"not{plain[0].upper()}{plain[1:]}")},
)
OPERATION = obj(
    "What is asked.",
    also={name: TEXTS for plain in ("hosts", "ports", "methods", "paths") for name in (plain, f"not{plain.title()}")},
)
AUTHORIZATION_POLICY = obj(
    "Who may do what.",
    spec=obj(
        "The policy.",
        selector=LABEL_SELECTOR,
        action=text("", "ALLOW", "DENY", "AUDIT", "CUSTOM"),
        rules=items(
            obj(
                "All of from, to and when must hold.",
                from_=items(obj(required=("source",), source=SOURCE)),
                to=items(obj(required=("operation",), operation=OPERATION)),
                when=items(obj(required=("key",), key=text(), values=TEXTS, notValues=TEXTS)),
            )
        ),
        provider=refused("external authorizers are not asked"),
        targetRef=refused("use selector"),
        targetRefs=refused("use selector"),
    ),
    status=NO_STATUS,
)

REQUEST_AUTHENTICATION = obj(
    "Whose tokens (JWT) are taken.",
    spec=obj(
        "The rules; a request without a token passes, one whose token cannot be proved does not.",
        selector=LABEL_SELECTOR,
        jwtRules=items(obj(
            "The tokens of one issuer.",
            required=("issuer",),
            issuer=text("Claim iss."),
            audiences=items(text(), doc="One of them must be in claim aud; none given: any."),
            jwksUri=text("URL of the issuer's public keys; without it and jwks: as OpenID Connect's discovery says."),
            jwks_uri=text("The same."),
            jwks=text("The public keys themselves (JSON Web Key Set)."),
            fromHeaders=items(obj(required=("name",), name=text(), prefix=text("What stands before the token.")),
                              doc="Where tokens stand; default Authorization: Bearer, and parameter access_token."),
            fromParams=items(text(), doc="Query parameters where tokens stand."),
            fromCookies=items(text(), doc="Cookies where tokens stand."),
            outputPayloadToHeader=text("The payload, base64url, for the app."),
            outputClaimToHeaders=items(obj(required=("header", "claim"), header=text("Its name."), claim=text("a, or a.b.")),
                                       doc="Claims for the app, each in a header."),
            forwardOriginalToken=flag("The app gets the token, too."),
            timeout=duration("Of fetching keys; default 5s."),
            spaceDelimitedClaims=items(text(), doc="Claims whose text is a list; scope and permission always are."),
        )),
        targetRef=refused("use selector"),
        targetRefs=refused("use selector"),
    ),
    status=NO_STATUS,
)  # fmt: skip

TLS_VERSION = text("", "TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")
SERVER_TLS = obj(
    "TLS of a server.",
    mode=text("", "PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"),
    httpsRedirect=flag("Answer plain HTTP with 301 to https."),
    serverCertificate=text("File."),
    privateKey=text("File."),
    caCertificates=text("File."),
    caCrl=text("File with lists of revoked certificates, one of each authority in a client's chain."),
    credentialName=text("Secret."),
    credentialNames=TEXTS,
    caCertCredentialName=text("Secret."),
    tlsCertificates=items(obj(serverCertificate=text(), privateKey=text(), caCertificates=text()), doc="Files."),
    subjectAltNames=TEXTS,
    verifyCertificateSpki=refused("use caCertificates and subjectAltNames"),
    verifyCertificateHash=refused("use caCertificates and subjectAltNames"),
    minProtocolVersion=TLS_VERSION,
    maxProtocolVersion=TLS_VERSION,
    cipherSuites=TEXTS,
)
GATEWAY = obj(
    "What an edge proxy listens on.",
    required=("spec",),
    spec=obj(
        required=("servers",),
        selector=STRINGS,
        servers=items(
            obj(required=("port", "hosts"), hosts=items(text(), 1), name=text(), bind=text(), tls=SERVER_TLS,
                port=obj(required=("number", "name", "protocol"), number=integer("", 0, 65535), name=text(),
                         protocol=text(), targetPort=unused(integer(), "a gateway listens on `number`")),
                defaultEndpoint=unused(text(), "it is a sidecar's")),
            1,
        ),
    ),
    status=NO_STATUS,
)  # fmt: skip
SIDECAR_PORT = obj("A port.", number=integer("", 0, 65535), name=text(), protocol=text(),
                   targetPort=unused(integer(), "ports are those of services"))  # fmt: skip
CAPTURE = text("", "DEFAULT", "IPTABLES", "NONE")
SIDECAR = obj(
    "What a sidecar needs to know.",
    spec=obj(
        workloadSelector=obj(labels=STRINGS),
        ingress=items(obj("What comes in on a port of the workload; other ports are as without.", required=("port",),
                          port=obj("A port.", number=integer("", 0, 65535), name=text(), protocol=text(),
                                   targetPort=unused(integer(), "defaultEndpoint says where the app listens")),
                          bind=unused(text(), "a sidecar's listeners are its command line's (--inbound)"),
                          captureMode=unused(CAPTURE, "capture is the command line's"),
                          defaultEndpoint=text("127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT or [::]:PORT (the workload's address), unix:///PATH."),
                          tls=refused("clients outside the mesh use TLS of the app's own, or a gateway"),
                          connectionPool=POOL)),
        egress=items(obj(required=("hosts",), port=SIDECAR_PORT, hosts=items(text(), 1),
                         bind=unused(text(), "a sidecar's listeners are its command line's"),
                         captureMode=unused(CAPTURE, "capture is the command line's"))),
        outboundTrafficPolicy=obj(mode=text("", "ALLOW_ANY", "REGISTRY_ONLY"),
                                  egressProxy=refused("name the gateway in a ServiceEntry or VirtualService")),
        inboundConnectionPool=POOL,
    ),
    status=NO_STATUS,
)  # fmt: skip
_BACKEND = obj(service=obj(required=("name",), name=text(), port=obj(one_of=(("name", "number"),), name=text(), number=PORT)),
               resource=refused("only services are backends here"))  # fmt: skip
INGRESS_CLASS = obj(
    "Whose an Ingress is.",
    spec=obj(controller=text("fairlead.dev/ingress-controller: gateways of this mesh."),
             parameters=unused(anything(), "there are none")),
)  # fmt: skip
INGRESS = obj(
    "Routes from outside.",
    spec=obj(
        ingressClassName=text(),
        defaultBackend=_BACKEND,
        tls=items(obj(hosts=TEXTS, secretName=text())),
        rules=items(obj(host=text(), http=obj(required=("paths",), paths=items(obj(
            required=("pathType", "backend"), path=text(), pathType=text("", "Exact", "Prefix", "ImplementationSpecific"),
            backend=_BACKEND))))),
    ),
    status=NO_STATUS,
)  # fmt: skip
RULES = items(
    obj(required=("verbs",), verbs=TEXTS, apiGroups=TEXTS, resources=TEXTS, resourceNames=TEXTS, nonResourceURLs=TEXTS)
)
ROLE = obj("Permissions.", rules=RULES)
CLUSTER_ROLE = obj(
    "Permissions everywhere.",
    rules=RULES,
    aggregationRule=obj(
        "Gathers the rules of other ClusterRoles; its own are those that were gathered.",
        clusterRoleSelectors=items(SELECTOR),
    ),
)
BINDING = obj("Who has a role.", required=("roleRef",),
              subjects=items(obj(required=("kind", "name"), kind=text(), name=text(), namespace=text(), apiGroup=text())),
              roleRef=obj(required=("kind", "name"), apiGroup=text(), kind=text(), name=text()))  # fmt: skip

MESH_CONFIG = obj(
    "Settings of the mesh as a whole; one of them, named default.",
    spec=obj(
        "Settings, with Istio's names and defaults.",
        trustDomain=text(),
        trustDomainAliases=TEXTS,
        clusterDomain=text(),
        rootNamespace=text(),
        outboundTrafficPolicy=obj(mode=text("", "ALLOW_ANY", "REGISTRY_ONLY")),
        defaultHttpRetryPolicy=RETRIES,
        pathNormalization=obj(normalization=text("", "DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES")),
        connectTimeout=duration(),
        enableAutoMtls=flag(),
        meshMTLS=obj("Mutual TLS between sidecars.", minProtocolVersion=text(
            "Lowest version of TLS; TLS_AUTO is 1.3.", "", "TLS_AUTO", "TLSV1_2", "TLSV1_3")),
        accessLogFile=text("Empty: no access log."),
        accessLogEncoding=text("", "TEXT", "JSON"),
        accessLogFormat=text(),
        localityLbSetting=LOCALITY_SETTING,
        jwksBlockedNetworks=items(
            text(), doc="Networks where keys of tokens (jwksUri) are not fetched; link-local ones never are."),
        ingressClass=text("Class of the Ingresses that gateways serve."),
        ingressControllerMode=text("STRICT: of our class; DEFAULT: also those without one; OFF.", "STRICT", "DEFAULT", "OFF"),
        ingressSelector=text("Value of the label istio of the gateways that serve Ingresses."),
    ),
)  # fmt: skip

TOKEN_BUCKET = obj(
    "How many in how much time. It begins full, and is filled by the time that has passed, in fractions of a token.",
    required=("maxTokens", "fillInterval"),
    maxTokens=integer("Tokens that it holds at most: what may come at once.", 1, 2**32 - 1),
    tokensPerFill=integer("Tokens that each fillInterval brings; default 1.", 1, 2**32 - 1),
    fillInterval=duration("50ms or more."),
)
LOCAL_RATE_LIMIT = obj(
    "How many requests and connections a proxy takes in; each proxy counts for itself.",
    required=("spec",),
    spec=obj(
        "The limits.",
        selector=obj("Whose proxies; without labels all of the namespace (of the mesh in the root namespace).", matchLabels=STRINGS),
        context=text("Where a proxy counts: what comes to its workload (default), what its workload sends, or what a "
                     "gateway takes in.", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY"),
        limits=items(obj(
            "Of HTTP requests. A request counts in all limits that it matches, and is let through if none refuses it.",
            required=("name", "tokenBucket"),
            name=text("Names it in metrics and logs."),
            match=obj(
                "All must hold; left out: every request.",
                hosts=items(text(), doc="Services, or names that clients ask for; may begin with a star."),
                port=integer("That the client dialled; inbound the workload's own.", 1, 65535),
                route=obj("A route that was chosen.", required=("virtualService",),
                          virtualService=text("name, or namespace/name."), name=text("Of its http route; default: any.")),
                methods=TEXTS,
                uri=MATCH,
                headers=table(MATCH),
            ),
            tokenBucket=TOKEN_BUCKET,
            per=text("Who has a bucket: PROXY with all its workers (default), CLIENT (identity, else address), or CONNECTION.",
                     "PROXY", "CLIENT", "CONNECTION"),
            enforce=flag("false: only count what would be refused."),
            percentage=obj("Of the requests over the limit, those that are refused.", value=decimal("Percent.", 0, 100)),
            response=obj(
                "The answer to what is over the limit.",
                status=integer("Default 429.", 400, 599),
                headers=table(text(), "Added to it."),
                grpcResourceExhausted=flag("gRPC calls end with RESOURCE_EXHAUSTED, not UNAVAILABLE."),
            ),
        )),
        connections=items(obj(
            "Of new connections, HTTP or not; what is over the limit is closed at once.",
            required=("name", "tokenBucket"),
            name=text("Names it in metrics and logs."),
            port=integer("That the client dialled; inbound the workload's own; default: any.", 1, 65535),
            tokenBucket=TOKEN_BUCKET,
            per=text("Who has a bucket: PROXY (default), or CLIENT (source address).", "PROXY", "CLIENT"),
            enforce=flag("false: only count what would be refused."),
        )),
    ),
    status=NO_STATUS,
)  # fmt: skip

_NET = ("istio-io", "networking-istio-io")
_SEC = ("istio-io", "security-istio-io")
RULE_KINDS: tuple[Kind, ...] = (
    kind("networking.istio.io", "v1 v1beta1 v1alpha3", "VirtualService", "virtualservices", VIRTUAL_SERVICE, "vs", categories=_NET),
    kind("networking.istio.io", "v1 v1beta1 v1alpha3", "DestinationRule", "destinationrules", DESTINATION_RULE, "dr", categories=_NET),
    kind("networking.istio.io", "v1 v1beta1 v1alpha3", "Gateway", "gateways", GATEWAY, "gw", categories=_NET),
    kind("networking.istio.io", "v1 v1beta1 v1alpha3", "Sidecar", "sidecars", SIDECAR, categories=_NET),
    kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", NETWORK_POLICY, "netpol"),
    kind("networking.k8s.io", "v1", "Ingress", "ingresses", INGRESS, "ing"),
    kind("networking.k8s.io", "v1", "IngressClass", "ingressclasses", INGRESS_CLASS, namespaced=False),
    kind("security.istio.io", "v1 v1beta1", "PeerAuthentication", "peerauthentications", PEER_AUTHENTICATION, "pa", categories=_SEC),
    kind("security.istio.io", "v1 v1beta1", "AuthorizationPolicy", "authorizationpolicies", AUTHORIZATION_POLICY, "ap", categories=_SEC),
    kind("security.istio.io", "v1 v1beta1", "RequestAuthentication", "requestauthentications", REQUEST_AUTHENTICATION, "ra", categories=_SEC),
    kind("rbac.authorization.k8s.io", "v1", "Role", "roles", ROLE),
    kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", BINDING),
    kind("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", CLUSTER_ROLE, namespaced=False),
    kind("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", BINDING, namespaced=False),
    kind("fairlead.dev", "v1", "MeshConfig", "meshconfigs", MESH_CONFIG, namespaced=False),
    kind("fairlead.dev", "v1", "LocalRateLimit", "localratelimits", LOCAL_RATE_LIMIT, "lrl"),
)  # fmt: skip
KINDS: tuple[Kind, ...] = (*FACT_KINDS, *RULE_KINDS, *KEPT_KINDS)
BY_NAME: dict[tuple[str, str], Kind] = {(version, k.kind): k for k in KINDS for version in k.api_versions}
_GATEWAY_API = (
    "the Gateway API is not carried out: use Istio's Gateway and VirtualService (networking.istio.io), or Ingress"
)
REFUSED_KINDS = {
    "EnvoyFilter": "there is no Envoy to configure; for local rate limits write a LocalRateLimit (fairlead.dev/v1)",
    "WasmPlugin": "there are no WebAssembly filters",
    "ProxyConfig": "use fairlead's settings",
    "Telemetry": "use MeshConfig for the access log; metrics and trace headers are always on",
    "IstioOperator": "install nothing: fairlead's roles are started as they are",
    "GatewayClass": _GATEWAY_API,
    "HTTPRoute": _GATEWAY_API,
    "GRPCRoute": _GATEWAY_API,
    "TLSRoute": _GATEWAY_API,
    "TCPRoute": _GATEWAY_API,
    "ReferenceGrant": _GATEWAY_API,
    "Endpoints": "it is deprecated upstream: use EndpointSlice (discovery.k8s.io/v1)",
    "CustomResourceDefinition": "the kinds are built in; no others can be added",
}
GATEWAY_PROTOCOLS = tuple(p for p in ENTRY_PROTOCOLS)


def why_unknown(api_version: str, name: str) -> str:
    """What to say of a document whose apiVersion and kind are not in the table."""
    if not api_version or not name:
        return "apiVersion and kind must both be given, e.g. apiVersion: v1, kind: Service"
    if name == "Gateway" and api_version.startswith("gateway.networking.k8s.io/"):
        return f"kind {name} of {api_version} may not be used: {_GATEWAY_API}"
    if name in REFUSED_KINDS:
        return f"kind {name} may not be used: {REFUSED_KINDS[name]}"
    same = [version for version, other in BY_NAME if other == name]
    if same:
        return f"{name} is of {' or '.join(same)}, not of {api_version}"
    names = sorted({k.kind for k in KINDS})
    from difflib import get_close_matches  # only for mistakes

    near = get_close_matches(name, names, n=1)
    return f"unknown kind {name}" + (f": did you mean {near[0]}?" if near else f"; known are {', '.join(names)}")
