# Types of access_line.py for Cython.
cimport cython
from ..policy.tables cimport ClusterEndpoint
from .message cimport Outcome, RequestHead

cdef unsigned long long _FORWARDED_FOR
cdef unsigned long long _USER_AGENT
cdef bint COMPILED

cdef class Seconds:
    cdef public long long at
    cdef public str text
    cpdef str of(self, long long at)

@cython.locals(letter=Py_UCS4)
cdef bint _plain(str text) except *
cpdef str escaped(str text)
cdef str _shown(str text)
cdef long long _milliseconds(double seconds) except? -1
@cython.locals(request=RequestHead, started=double, at=cython.longlong, whole=cython.longlong, seen=cython.ulonglong, forwarded_for=str, user_agent=str, request_id=str, protocol=str,
               endpoint=ClusterEndpoint)
cpdef str usual_line(Outcome outcome, double skew, Seconds seconds)
