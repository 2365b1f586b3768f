# Types of message.py for Cython.

from ..policy.tables cimport Arrival, ClusterEndpoint, Decision, Destination

cpdef bytes needle(str name)

cdef class Head:
    cdef public bytes raw
    cdef public Py_ssize_t first
    cdef public int major
    cdef public int minor
    cdef public unsigned long long seen
    cdef public list cuts
    cdef public long long content_length
    cdef public bint chunked
    cdef public bint keep_alive
    cdef public str upgrade
    cdef public bint te_trailers
    cdef bytes _lower
    cpdef bint has(self, unsigned long long bit)
    cpdef bytes lower(self)
    cpdef header(self, str name)
    cpdef replace(self, bytes raw)

cdef class RequestHead(Head):
    cdef public str method
    cdef public str scheme
    cdef public str authority
    cdef public str path
    cdef public str target
    cdef public bint expect_continue
    cdef public bytes told
    cdef public Arrival arrival

cdef class ResponseHead(Head):
    cdef public int status
    cdef public bint until_close

cdef class Outcome:
    cdef public str kind
    cdef public RequestHead request
    cdef public ResponseHead response
    cdef public Arrival arrival
    cdef public Decision decision
    cdef public Destination destination
    cdef public object cluster
    cdef public ClusterEndpoint endpoint
    cdef public int status
    cdef public str reason
    cdef public str flag
    cdef public str why
    cdef public str details
    cdef public bint grpc
    cdef public str grpc_status
    cdef public str original_path
    cdef public str authority
    cdef public str request_id
    cdef public double started_at
    cdef public double started_unix
    cdef public double sent_at
    cdef public double first_at
    cdef public double ended_at
    cdef public long long received_bytes
    cdef public long long sent_bytes
    cdef public int attempts
    cdef public str source_identity
    cdef public bint upstream_tls
    cdef public str upstream_local
    cdef public str local_address
    cdef public bint mirrored
