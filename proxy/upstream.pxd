# Types of upstream.py for Cython.
cimport cython
from .host cimport Host
from .http1 cimport ResponseParser
from .message cimport ResponseHead
from .outbox cimport Outbox
from .poller cimport Protocol, Transport
from .pool cimport Pool, Waiter

cdef unsigned long long HAS_KEEP_ALIVE

cdef class Upstream(Protocol):
    cdef public Pool pool
    cdef public Host host
    cdef public object clock
    cdef public object transport
    cdef public ResponseParser parser
    cdef public Waiter exchange
    cdef public bint usable
    cdef public bint lost
    cdef public bint two
    cdef public bint asked_two
    cdef public bint reused
    cdef public bint answered
    cdef public ResponseHead head
    cdef public Py_ssize_t requests
    cdef public bint last
    cdef public bint write_paused
    cdef public bint paused
    cdef public double opened_at
    cdef public double idle_since
    cdef public double idle_s
    cdef public str local
    cdef public Outbox outbox
    cdef bytes _out
    cdef public bint unsent
    cdef object _write
    cdef Transport _typed

    @cython.locals(parser=ResponseParser, head=ResponseHead, body=bytes, exchange=Waiter)
    cpdef data_received(self, bytes data)
    cdef _told(self, ResponseHead head)
    cpdef begin(self, Waiter exchange, str method, bytes data)
    cpdef write(self, bytes data)
    @cython.locals(typed=Transport)
    cdef _put(self, bytes data)
    cpdef flush(self)
    @cython.locals(parser=ResponseParser, head=ResponseHead)
    cpdef end(self, bint whole, double now)
    @cython.locals(held=Py_ssize_t)
    cpdef Py_ssize_t buffered(self) except *
    cpdef bytes trailers(self)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef close(self)
    cdef _lose(self, str why, bint malformed)
    cdef str _name(self)
