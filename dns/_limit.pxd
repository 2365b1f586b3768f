# Types of _limit.py for Cython.
cimport cython

cdef class Limiter:
    cdef public long long per_second
    cdef public long long slipped
    cdef public long long dropped
    cdef long long _second
    cdef dict _counts

    @cython.locals(second=cython.longlong, count=cython.longlong)
    cpdef int take(self, bytes network, double now) except -1
