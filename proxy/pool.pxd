# Types of pool.py for Cython.
cimport cython

cdef class Pool:
    cdef public object live
    cdef public object connect
    cdef public object waiting
    cdef public Py_ssize_t connecting
    cdef public dict opening_two
    cdef public bint retired

    @cython.locals(idle=list, two=bint)
    cpdef acquire(self, host, waiter)
    cpdef bint open_allowed(self, host) except *
    cpdef count_open(self, host)
    cpdef count_closed(self, host)
    cdef _count_waiting(self)
    cdef _open(self, host, bint two)
    cdef _opened(self, host, bint two)
    cpdef give(self, connection)
    cpdef ready(self, upstream)
    cpdef failed(self, host, str why, bint two=*)
    cpdef offer(self, upstream)
    cpdef closed(self, upstream)
    cdef bint _wanted_elsewhere(self) except *
    cdef _open_next(self)
    cpdef cancel(self, waiter)
