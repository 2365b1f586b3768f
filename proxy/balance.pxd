# Types of balance.py for Cython.
cimport cython
from .host cimport Host

cdef class Balancer:
    cpdef Host pick(self, str key, draw)

cdef class RoundRobin(Balancer):
    cdef public list hosts
    cdef public list weights
    cdef public bint equal
    cdef public Py_ssize_t total
    cdef public list current
    cdef public Py_ssize_t turn
    @cython.locals(best=Py_ssize_t, index=Py_ssize_t, value=Py_ssize_t)
    cpdef Host pick(self, str key, draw)

cdef class WeightedRandom(Balancer):
    cdef public list hosts
    cdef public bint equal
    cdef public list sums

cdef class LeastRequest(Balancer):
    cdef public list hosts
    cdef public WeightedRandom random
    @cython.locals(hosts=list, count=Py_ssize_t, first=Py_ssize_t, second=Py_ssize_t, one=Host, other=Host,
                   left=Py_ssize_t, right=Py_ssize_t)
    cpdef Host pick(self, str key, draw)

cdef class RingHash(Balancer):
    cdef public list hosts
    cdef public WeightedRandom random
    cdef public list points
    cdef public list owners

cdef class Maglev(Balancer):
    cdef public list hosts
    cdef public WeightedRandom random
    cdef public list table
