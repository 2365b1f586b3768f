# Types of connection2.py for Cython.
cimport cython
from ..policy.tables cimport Arrival
from .core cimport Client, Core
from .exchange cimport Exchange
from .http2 cimport Http2, Stream
from .message cimport Outcome, RequestHead
from .outbox cimport Outbox

cdef double NEVER
cdef Py_ssize_t FULL_OCTETS
cdef Py_ssize_t FULL_IN_ALL
cdef Py_ssize_t TURN_MOST
cdef Py_ssize_t UNREAD_MOST
cdef Py_ssize_t STREAMS_A_SHARE
cdef int CANCEL
cdef int INTERNAL_ERROR
cdef int NO_ERROR

cdef class ClientStream(Client):
    cdef public Downstream2 connection
    cdef public Stream stream
    cdef public Exchange exchange
    cdef public bint full
    cdef public bint ended
    cdef Py_ssize_t _held
    cdef bytes _trailers
    cdef object _timer
    cdef double _armed_at
    cdef object _watched
    cdef Py_ssize_t _size

    cpdef respond(self, bytes text, bint end)
    cpdef send(self, bytes data, bint end)
    cpdef finish(self, bytes trailers)
    cpdef bytes trailers(self)
    cpdef bint last_request(self, exchange) except *
    @cython.locals(connection=Downstream2)
    cpdef done(self, exchange, bint close)
    @cython.locals(connection=Downstream2)
    cpdef abort(self)
    @cython.locals(held=Py_ssize_t)
    cpdef Py_ssize_t buffered(self) except *
    cpdef pause_reading(self)
    @cython.locals(held=Py_ssize_t)
    cpdef resume_reading(self)
    cpdef arm(self, double at)
    cpdef body(self, bytes data, bint end)
    cpdef end_with(self, bytes trailers)
    @cython.locals(exchange=Exchange)
    cpdef lose(self, reason, str why)
    cpdef look(self)
    cpdef drained(self)
    cdef _watch(self)
    cdef _stop(self)
    cdef _look(self)

cdef class Downstream2:
    cdef public Core engine
    cdef public Arrival arrival
    cdef public object transport
    cdef public Http2 codec
    cdef public bint lost
    cdef public bint closing
    cdef public bint write_paused
    cdef public set streams
    cdef public bint tls
    cdef public str local
    cdef public double since
    cdef double _heard_at
    cdef double _announced_at
    cdef bint _leaving
    cdef bint _pending
    cdef Outbox _outbox
    cdef Py_ssize_t _unread
    cdef object _watched
    cdef Py_ssize_t _size
    cdef object _timer

    cpdef data_received(self, bytes data)
    @cython.locals(client=ClientStream, exchange=Exchange)
    cpdef head(self, Stream stream, RequestHead head, bint end)
    @cython.locals(client=ClientStream)
    cpdef data(self, Stream stream, bytes data, bint end)
    @cython.locals(client=ClientStream)
    cpdef trailers(self, Stream stream, bytes block)
    @cython.locals(client=ClientStream)
    cpdef writable(self, Stream stream)
    cpdef send_soon(self)
    @cython.locals(data=bytes)
    cpdef flush(self)
    cpdef ended(self, ClientStream client)
    cdef _idle(self)
    cpdef close_if_done(self)
    cdef _refuse(self, ClientStream client, RequestHead head)
    cdef _broken(self, error)
    cdef _own_outcome(self, reason, str why)
    cpdef abort(self)
    cpdef Py_ssize_t buffered(self) except *
    cpdef cut_off(self, reason, str why)
    cpdef list running(self)
    cpdef drain(self, double before=*)
    cdef _arm(self, double delay_s)
