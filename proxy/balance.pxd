# Types of balance.py for Cython.
cimport cython
from .host cimport Host

cdef class Balancer:
    cpdef Host pick(self, str key, draw)
    cpdef reweigh(self)

cdef class RoundRobin(Balancer):
    cdef public list hosts
    cdef public list weights
    cdef public bint equal
    cdef public double total
    cdef public list current
    cdef public Py_ssize_t turn
    @cython.locals(best=Py_ssize_t, index=Py_ssize_t, value=double, most=double, weights=list, current=list)
    cpdef Host pick(self, str key, draw)

cdef class WeightedRandom(Balancer):
    cdef public list hosts
    cdef public bint equal
    cdef public list sums
    @cython.locals(at=Py_ssize_t, sums=list)
    cpdef Host pick(self, str key, draw)

cdef class Spread(Balancer):
    cdef public list parts
    cdef public list ends
    @cython.locals(at=Py_ssize_t, ends=list, point=double, part=Balancer)
    cpdef Host pick(self, str key, draw)

cdef class LeastRequest(Balancer):
    cdef public list hosts
    cdef public WeightedRandom random
    @cython.locals(hosts=list, count=Py_ssize_t, first=Py_ssize_t, second=Py_ssize_t, one=Host, other=Host)
    cpdef Host pick(self, str key, draw)

cdef class PeakEwma(Balancer):
    cdef public list hosts
    cdef public WeightedRandom random
    @cython.locals(hosts=list, count=Py_ssize_t, first=Py_ssize_t, second=Py_ssize_t, one=Host, other=Host,
                   left=double, right=double)
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
