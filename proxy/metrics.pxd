# Types of metrics.py for Cython.
cimport cython
from ..policy.tables cimport Arrival, Cluster, ClusterEndpoint
from .cluster cimport LiveCluster
from .message cimport Outcome

cdef class Series:
    cdef public dict labels
    cdef public long long count
    cdef public long long closed
    cdef public long long opened
    cdef public double milliseconds
    cdef public list durations
    cdef public long long received
    cdef public list received_sizes
    cdef public long long sent
    cdef public list sent_sizes
    cdef public object owner
    cdef public int status
    cdef public str flag
    cdef public str listener
    cdef public str identity
    cdef public str kind
    cdef public bint grpc
    cdef public str grpc_status
    cdef public str cluster

cdef class Metrics:
    cdef public object workload
    cdef public str trust_domain
    cdef public dict _series
    cdef public dict reasons
    cdef public dict denials
    cdef public Py_ssize_t folded
    cdef public list more
    cdef public object identities
    cdef public object running
    cdef public dict _folded

    @cython.locals(series=Series, duration=double)
    cpdef done(self, Outcome outcome)
    @cython.locals(endpoint=ClusterEndpoint, series=Series, live=LiveCluster, config=Cluster, arrival=Arrival)
    cdef Series _of(self, Outcome outcome)
    @cython.locals(endpoint=ClusterEndpoint, live=LiveCluster)
    cdef Series _find(self, Outcome outcome)
    @cython.locals(series=Series)
    cdef Series _new(self, tuple key, Outcome outcome)
    cdef dict _labels(self, Outcome outcome)
    cdef str _identity(self, str namespace, str service_account)

@cython.locals(at=Py_ssize_t, count=Py_ssize_t)
cdef _count(list buckets, double value)
cpdef int bucket(double value) noexcept
