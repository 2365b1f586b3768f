# Types of host.py for Cython.
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
