# Types of upstream2.py for Cython.
cimport cython
from .host cimport Host
from .http2 cimport Http2, Stream
from .message cimport RequestHead, ResponseHead
from .outbox cimport Outbox
from .pool cimport Pool, Waiter
from .upstream cimport Upstream

cdef Py_ssize_t FULL_OCTETS
cdef Py_ssize_t STREAMS_MOST
cdef Py_ssize_t UNREAD_MOST
cdef Py_ssize_t IDS_MOST
cdef int CANCEL
cdef int NO_ERROR
cdef int REFUSED_STREAM

cdef class EndpointStream(Upstream):
    cdef public Connection2 connection
    cdef public Stream stream
    cdef public bint complete
    cdef public bint reading_paused
    cdef Py_ssize_t _held
    cdef bytes _trailers

    cpdef open(self, Waiter exchange, RequestHead head, bytes text, bint end)
    cpdef send(self, bytes data, bint end)
    cpdef finish(self, bytes trailers)
    cpdef body(self, bytes data, bint end)
    cpdef respond(self, ResponseHead head, bint end)
    cpdef end_with(self, bytes trailers)
    cpdef lose(self, str why, bint malformed=*, bint refused=*)
    @cython.locals(full=bint)
    cpdef look(self)
    cdef _give_back(self)

cdef class Connection2:
    cdef public bint two
    cdef public bint asked_two
    cdef public Pool pool
    cdef public Host host
    cdef public object clock
    cdef public object transport
    cdef public Http2 codec
    cdef public str scheme
    cdef public bint lost
    cdef public bint usable
    cdef public bint write_paused
    cdef public set taken
    cdef public Py_ssize_t requests
    cdef public str local
    cdef public double opened_at
    cdef public double heard_at
    cdef public double idle_since
    cdef public double asked_at
    cdef public double pinged_at
    cdef Outbox _outbox
    cdef bint _pending
    cdef Py_ssize_t _unread

    @cython.locals(codec=Http2)
    cpdef bint room(self) except *
    cpdef EndpointStream stream(self)
    cpdef retire(self)
    cpdef data_received(self, bytes data)
    @cython.locals(owner=EndpointStream)
    cpdef head(self, Stream stream, ResponseHead head, bint end)
    @cython.locals(owner=EndpointStream)
    cpdef interim(self, Stream stream, ResponseHead head)
    @cython.locals(owner=EndpointStream)
    cpdef data(self, Stream stream, bytes data, bint end)
    @cython.locals(owner=EndpointStream)
    cpdef trailers(self, Stream stream, bytes block)
    cpdef writable(self, Stream stream)
    cpdef send_soon(self)
    @cython.locals(data=bytes)
    cpdef flush(self)
    cpdef left(self, EndpointStream owner)
    cpdef close(self)
    cdef _lose(self, str why, bint malformed=*)
    cdef str _name(self)
