# Types of cluster.py for Cython.
cimport cython
from ..policy.tables cimport Cluster
from .balance cimport Balancer
from .host cimport Host

cdef class LiveCluster:
    cdef public Cluster config
    cdef public list hosts
    cdef public list usable
    cdef public Py_ssize_t active
    cdef public Py_ssize_t connections
    cdef public Py_ssize_t pending
    cdef public Py_ssize_t retrying
    cdef public long long requests
    cdef public Py_ssize_t ejected
    cdef public Py_ssize_t ejections_total
    cdef public object events
    cdef public object shared
    cdef double _next_sweep
    cdef Balancer _balancer

    cpdef Py_ssize_t elsewhere(self, int kind) except -1
    @cython.locals(host=Host)
    cpdef Host choose(self, str key, draw, exclude=*)
    cpdef report(self, Host host, int status, bint local_failure, double now)
    cdef _rebuild(self)
