# Types of core.py for Cython.
cimport cython
from ..policy.tables cimport Tables
from .outbox cimport Outbox
from .poller cimport Protocol
from .pool cimport Pool
from .rate_limit cimport Limiter

cdef extern from *:
    """
    #include <time.h>

    /* As Python's time.monotonic. */
    static double fl_monotonic(void) {
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        return (double) at.tv_sec + 1e-9 * (double) at.tv_nsec;
    }
    """
    double fl_monotonic() nogil

cdef bint COMPILED

cdef class Client(Protocol):
    cdef public str local
    cdef public bint reading_paused
    cpdef write(self, bytes data)
    cpdef respond(self, bytes text, bint end)
    cpdef send(self, bytes data, bint end)
    cpdef finish(self, bytes trailers)
    cpdef done(self, exchange, bint close)
    cpdef bint last_request(self, exchange) except *
    cpdef bytes trailers(self)
    cpdef arm(self, double at)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef abort(self)


cdef class Core:
    cdef public Tables tables
    cdef public object settings
    cdef public object clock
    cdef public bint monotonic
    cdef public object draw
    cdef public object entropy
    cdef public object decide
    cdef public object pick
    cdef public object hash_input
    cdef public object observe
    cdef public bint draining
    cdef public Limiter limiter
    cdef public object tokens
    cdef public str own_identity
    cdef public dict pools
    cdef public Outbox outbox
    cdef str _ids
    cdef int _ids_base
    cdef int _ids_left

    cdef double now(self) except? -1
    @cython.locals(left=int, h=str)
    cpdef str new_id(self)
    cpdef Pool pool(self, Tables tables, str name)
