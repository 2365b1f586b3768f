# Types of tls.py for Cython.

cimport cython
from .poller cimport Protocol, Transport
from .wire cimport Wire

cdef class Tls(Transport):
    cdef public object protocol
    cdef Protocol _typed
    cdef public object context
    cdef public object made
    cdef public object soon
    cdef public bint server_side
    cdef public object server_hostname
    cdef public object raw
    cdef public object incoming
    cdef public object outgoing
    cdef public object wire
    cdef object _read
    cdef object _write
    cdef Transport _below
    cdef public bytes part
    cdef public bint shaken
    cdef public bint failed
    cdef public bint paused
    cdef public bint closing
    cdef public bint ended
    cdef public bint cut
    cdef public bint said
    cdef public bint half
    cdef public bint reading
    cdef public Py_ssize_t records
    cdef public object error
    cdef public long long first

    cpdef _shake(self)
    @cython.locals(end=Py_ssize_t, at=Py_ssize_t, size=Py_ssize_t, begin=Py_ssize_t, records=Py_ssize_t)
    cpdef _take(self, bytes data)
    cpdef data_received(self, bytes data)
    @cython.locals(size=Py_ssize_t, typed=Protocol)
    cpdef _read_on(self)
    cpdef _end(self)
    cpdef _cut_off(self)
    cpdef _fail(self, error)
    @cython.locals(size=Py_ssize_t)
    cpdef write(self, bytes data)
    cpdef flush(self)
    cpdef _send(self)
