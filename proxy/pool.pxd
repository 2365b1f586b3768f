# Types of pool.py for Cython.
cimport cython
from ..policy.tables cimport PoolLimits
from .cluster cimport LiveCluster
from .host cimport Host
from .message cimport ResponseHead

cdef class Waiter:
    cdef public Host host
    cdef public bint wants_two
    cdef public double moment
    cpdef bint may_be_sent_again(self) except *
    cpdef connected(self, upstream)
    cpdef connect_failed(self, str why)
    cpdef interim(self, ResponseHead head)
    cpdef response(self, ResponseHead head, bytes body, bint complete)
    cpdef response_body(self, bytes body, bint complete)
    cpdef upstream_lost(self, str why, bint malformed=*, bint refused=*)
    cpdef upstream_full(self, bint full)


cdef class Pool:
    cdef public LiveCluster live
    cdef public object connect
    cdef public object waiting
    cdef public Py_ssize_t connecting
    cdef public dict opening_two
    cdef public bint retired

    @cython.locals(idle=list, two=bint, limits=PoolLimits, idle_s=double)
    cpdef acquire(self, Host host, Waiter waiter)
    cdef _too_old(self, Host host)
    cpdef bint open_allowed(self, Host host) except *
    @cython.locals(live=LiveCluster)
    cpdef count_open(self, Host host)
    @cython.locals(live=LiveCluster)
    cpdef count_closed(self, Host host)
    @cython.locals(live=LiveCluster)
    cdef _count_waiting(self)
    cdef _open(self, Host host, bint two)
    cdef _close_idle_but(self, Host host)
    cdef _opened(self, Host host, bint two)
    cpdef give(self, connection)
    cpdef ready(self, upstream)
    cpdef failed(self, Host host, str why, bint two=*)
    @cython.locals(host=Host)
    cpdef offer(self, upstream)
    cpdef closed(self, upstream)
    @cython.locals(live=LiveCluster, most=Py_ssize_t)
    cdef bint _wanted_elsewhere(self) except *
    cdef _open_next(self)
    cpdef cancel(self, waiter)
