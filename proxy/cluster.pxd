# Types of cluster.py for Cython.
cimport cython
from ..policy.tables cimport Cluster, OutlierPolicy
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
    cdef public bint measures
    cdef double _next_sweep
    cdef bint _warming
    cdef Balancer _balancer
    cdef list _levels

    cpdef Py_ssize_t elsewhere(self, int kind) except -1
    @cython.locals(host=Host, balancer=Balancer)
    cpdef Host choose(self, str key, draw, exclude=*)
    @cython.locals(host=Host, balancer=Balancer)
    cpdef Host choose_remote(self, str key, draw, exclude, list attempted)
    @cython.locals(other=Host)
    cdef Host _another(self, Balancer balancer, Host host, list usable, draw, exclude)
    @cython.locals(policy=OutlierPolicy)
    cpdef report(self, Host host, int status, bint local_failure, double now)
    cdef bint _eject(self, OutlierPolicy policy, Host host, str why, double now) except *
    @cython.locals(policy=OutlierPolicy)
    cdef _begin_rates(self, double now)
    @cython.locals(policy=OutlierPolicy)
    cdef _rebuild(self)
    cdef Balancer _balancer_of(self, level)
    @cython.locals(host=Host)
    cdef _settle(self, double now)
