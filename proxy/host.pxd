# Types of host.py for Cython.
cimport cython
from ..policy.tables cimport ClusterEndpoint

cdef class Host:
    cdef public ClusterEndpoint endpoint
    cdef public str name
    cdef public Py_ssize_t active
    cdef public Py_ssize_t connections
    cdef public list idle
    cdef public list shared
    cdef public bint one_only
    cdef public long long requests
    cdef public object health
    cdef public bint gone
    cdef public double weight
    cdef public double warm_from
    cdef public double latency_s
    cdef double _latency_at
    cdef public double fresh_s
    cdef public double closes_s
    cdef public double kept_s
    cdef double _closed_s
    cdef double _closed_at

    @cython.locals(closes=double, kept=double)
    cpdef bint may_use(self, double idle_s, bint again) except *
    cpdef bint warm(self, warmup, double now) except *
    @cython.locals(before=double, kept=double)
    cpdef took(self, double seconds, double now)
    cpdef failed(self, double now)
    cpdef fade(self, double now)
    cpdef says(self, double seconds)
    cpdef was_kept(self, double idle_s)
    @cython.locals(before=double, at=double)
    cpdef closed_idle(self, double idle_s, double now)
    cdef _close_after(self, double seconds)
