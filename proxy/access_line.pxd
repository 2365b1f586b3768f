# Types of access_line.py for Cython.
cimport cython
from ..policy.tables cimport ClusterEndpoint
from .message cimport Outcome, RequestHead

cdef unsigned long long _FORWARDED_FOR
cdef unsigned long long _USER_AGENT
cdef bint COMPILED
cdef list _NUMBERS
cdef list _THOUSANDTHS

cdef class Seconds:
    cdef public long long at
    cdef public str text
    cpdef str of(self, long long at)

@cython.locals(letter=Py_UCS4)
cdef bint _plain(str text) except *
cpdef str escaped(str text)
cdef str _shown(str text)
cdef str _number(long long number)
cdef long long _milliseconds(double seconds) except? -1
@cython.locals(request=RequestHead, started=double, at=cython.longlong, whole=cython.longlong, forwarded_for=str, user_agent=str,
               request_id=str, protocol=str, address=str, endpoint=ClusterEndpoint)
cpdef str usual_line(Outcome outcome, double skew, Seconds seconds)

cdef class Lines:
    cdef public object line
    cdef public bint usual
    cdef public object soon
    cdef public double skew
    cdef public list waiting
    cdef public list made
    cdef public Py_ssize_t held
    cdef public Py_ssize_t dropped
    cdef public Py_ssize_t taken
    cdef bint _due
    cdef Seconds _seconds
    @cython.locals(waiting=list)
    cpdef add(self, Outcome outcome)
    @cython.locals(waiting=list, lines=list, outcome=Outcome, text=str, skew=double, seconds=Seconds)
    cpdef make(self)
    cpdef bytes take(self)
