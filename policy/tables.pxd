# Types of tables.py for Cython.
cimport cython

cdef class Arrival:
    cdef public str listener
    cdef public str source_ip
    cdef public int source_port
    cdef public str destination_ip
    cdef public int port
    cdef public str host
    cdef public str identity
    cdef public bint tls
    cdef public str sni
    cdef public str alpn
    cdef public int server
    cdef public object buckets

cdef class Verdict:
    cdef public bint allowed
    cdef public str by
    cdef public str why

cdef class HeaderOps:
    cdef public tuple set
    cdef public tuple add
    cdef public tuple remove
    cdef public object wire

cdef class Destination:
    cdef public str authority
    cdef public str cluster
    cdef public str host
    cdef public int port
    cdef public str subset
    cdef public Py_ssize_t weight
    cdef public HeaderOps request_headers
    cdef public HeaderOps response_headers

cdef class RetryPolicy:
    cdef public tuple retry_on
    cdef public int attempts
    cdef public object conditions
    cdef public object status_codes
    cdef public object per_try_timeout_s
    cdef public double backoff_s
    cdef public bint ignore_previous_hosts
    cdef public bint remote

cdef class Decision:
    cdef public str verdict
    cdef public int status
    cdef public str reason
    cdef public str why
    cdef public str virtual_service
    cdef public str route
    cdef public tuple destinations
    cdef public Py_ssize_t total_weight
    cdef public str authority
    cdef public str path
    cdef public HeaderOps request_headers
    cdef public HeaderOps response_headers
    cdef public object timeout_s
    cdef public RetryPolicy retries
    cdef public object fault
    cdef public tuple mirrors
    cdef public str location
    cdef public bytes body
    cdef public Verdict policy

cdef class LoadBalancer:
    cdef public str kind
    cdef public str hash_on
    cdef public str hash_name
    cdef public Py_ssize_t table_size
    cdef public object cookie_ttl_s
    cdef public str cookie_path
    cdef public object warmup

cdef class PoolLimits:
    cdef public str h2_upgrade
    cdef public bint use_client_protocol
    cdef public Py_ssize_t max_streams
    cdef public Py_ssize_t max_connections
    cdef public double connect_timeout_s
    cdef public Py_ssize_t max_pending
    cdef public Py_ssize_t max_requests
    cdef public Py_ssize_t max_requests_per_connection
    cdef public Py_ssize_t max_retries
    cdef public double idle_timeout_s
    cdef public double max_connection_duration_s
    cdef public tuple keepalive
    cdef public int proxy_protocol
    cdef public double ping_every_s
    cdef public double ping_answer_s
    cdef public str tunnel
    cdef public bint spread
    cdef public double retry_percent
    cdef public Py_ssize_t retry_least
    cdef public double tcp_idle_timeout_s

cdef class OutlierPolicy:
    cdef public Py_ssize_t consecutive_5xx
    cdef public Py_ssize_t consecutive_gateway
    cdef public Py_ssize_t consecutive_local
    cdef public bint split
    cdef public double interval_s
    cdef public double base_ejection_s
    cdef public Py_ssize_t max_ejection_percent
    cdef public Py_ssize_t min_health_percent
    cdef public object codes
    cdef public Py_ssize_t success_hosts
    cdef public Py_ssize_t success_volume
    cdef public Py_ssize_t success_stdev_factor
    cdef public bint simple

cdef class ClusterEndpoint:
    cdef public str address
    cdef public int port
    cdef public object endpoint
    cdef public object tls
    cdef public Py_ssize_t weight
    cdef public int priority
    cdef public double locality_weight
    cdef public Verdict egress
    cdef public object last

cdef class Cluster:
    cdef public str name
    cdef public str host
    cdef public int port
    cdef public str subset
    cdef public tuple endpoints
    cdef public str protocol
    cdef public LoadBalancer load_balancer
    cdef public PoolLimits limits
    cdef public OutlierPolicy outlier
    cdef public str rule
    cdef public str service_name
    cdef public str service_namespace
    cdef public bint http2
    cdef public bint follows_client
    cdef public bint http1

cdef class Tables:
    cdef public object egress
    cdef public object gateway
    cdef public object rate_limits
    cdef public str version
    cdef public object viewpoint
    cdef public object mesh
    cdef public object snapshot
    cdef public object clusters
    cdef public object http
    cdef public object tcp
    cdef public object inbound
    cdef public object ports
