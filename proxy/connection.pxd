# Types of connection.py for Cython.
cimport cython
from ..policy.tables cimport Arrival
from .core cimport Client, Core
from .exchange cimport Exchange
from .http1 cimport RequestParser
from .message cimport RequestHead
from .outbox cimport Outbox
from .poller cimport Transport

cdef double NEVER

cdef class Downstream(Client):
    cdef public Core engine
    cdef public Arrival arrival
    cdef public object transport
    cdef public RequestParser parser
    cdef public Exchange exchange
    cdef public object relay
    cdef public object switched
    cdef public bint advancing
    cdef public bint closing
    cdef public bint lost
    cdef public Py_ssize_t lingering
    cdef public bint write_paused
    cdef public double stuck_at
    cdef public Py_ssize_t stuck_size
    cdef public bint half_closed
    cdef public Py_ssize_t requests
    cdef public double since
    cdef public bint mid_head
    cdef public bint fresh
    cdef public bytes early
    cdef public bint tls
    cdef object _timer
    cdef double _armed_at
    cdef Outbox _outbox
    cdef bytes _out
    cdef object _write
    cdef Transport _typed

    @cython.locals(exchange=Exchange)
    cpdef data_received(self, bytes data)
    @cython.locals(parser=RequestParser, head=RequestHead, exchange=Exchange, body=bytes)
    cdef _advance(self)
    @cython.locals(parser=RequestParser, body=bytes)
    cdef _read_body(self, Exchange exchange)
    cdef bytes _first(self, bytes data)
    cdef _refuse(self, error)
    cdef _answer(self, reason, str why, int status, bytes lines=*)
    cdef _own_outcome(self, reason, str why, int status)
    cdef _connect(self, head)
    cpdef bytes trailers(self)
    cpdef write(self, bytes data)
    @cython.locals(typed=Transport)
    cdef _put(self, bytes data)
    cpdef flush(self)
    @cython.locals(parser=RequestParser)
    cpdef done(self, exchange, bint close)
    cpdef bint last_request(self, exchange) except *
    cdef _close_after(self, bint unread)
    cdef _end_transport(self)
    @cython.locals(exchange=Exchange, held=Py_ssize_t)
    cpdef Py_ssize_t buffered(self) except *
    cpdef cut_off(self, reason, str why)
    cpdef abort(self)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef arm(self, double at)
    cdef bint _stuck(self, double now) except *
    cdef _wake_in_head(self, double now)
    cpdef detach(self)
    cpdef drain(self, double before=*)
