# Types of relay.py for Cython.
cimport cython
from .poller cimport Transport
from .wire cimport Tally, Wire

cdef class End(Tally):
    cdef public Relay relay
    cdef public End peer
    cdef public object transport
    cdef public list held
    cdef public bint ended
    cdef public bint lost
    cdef public bint whole
    cdef object _write
    cdef Transport _typed

    @cython.locals(typed=Transport)
    cpdef write(self, bytes data)
    cpdef data_received(self, bytes data)
    cpdef release(self)
    cpdef close(self)
    cpdef abort(self)


cdef class Relay:
    cdef public End client
    cdef public End server
    cdef public object on_end
    cdef public object on_held
    cdef public bint over
    cdef public bint moved
    cdef public double idle_since
    cdef public double idle_s
    cdef public double ends_at
    cdef public double lasts_s
    cdef public object reason
    cdef public str why

    cpdef half_closed(self, End end)
    cpdef closed(self, End end, error)
