# Types of message.py for Cython.
cimport cython
from ..policy.tables cimport Arrival, ClusterEndpoint, Decision, Destination

cdef bint COMPILED
cdef int LINES_NOTED
cdef dict _bit
cdef dict _NEEDLES

@cython.locals(found=bytes)
cpdef bytes needle(str name)
@cython.locals(octet=cython.uchar)
cpdef Py_ssize_t crlf_at(const unsigned char* text, Py_ssize_t at, Py_ssize_t stop) noexcept
@cython.locals(octet=cython.uchar, k=Py_ssize_t)
cdef bint _is_name(const unsigned char* text, Py_ssize_t at, const unsigned char* needle, Py_ssize_t size) noexcept

@cython.no_gc
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
    cdef int line_count
    cdef unsigned int lines[32]
    cpdef bint has(self, unsigned long long bit)
    cpdef bytes lower(self)
    cpdef header(self, str name)
    @cython.locals(count=int)
    cdef void note_line(self, Py_ssize_t start, Py_ssize_t name_size, unsigned int first) noexcept
    @cython.locals(text="const unsigned char*", begin="const unsigned char*", size=Py_ssize_t, key="unsigned int", k=int,
                   entry="unsigned int", at=Py_ssize_t, end=Py_ssize_t, values=list, value=str)
    cdef _find(self, bytes raw, bytes sought)
    cpdef replace(self, bytes raw)

@cython.no_gc
cdef class RequestHead(Head):
    cdef public str method
    cdef public str scheme
    cdef public str authority
    cdef public str path
    cdef public str target
    cdef public bint expect_continue
    cdef public bytes told
    cdef public Arrival arrival
    cdef public str remote_ip
    cdef public object claims

@cython.no_gc
cdef class ResponseHead(Head):
    cdef public int status
    cdef public bint until_close

@cython.no_gc
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
    cdef public str policy
    cdef public bint mirrored
