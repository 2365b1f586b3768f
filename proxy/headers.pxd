# Types of headers.py for Cython.
cimport cython
from .message cimport RequestHead, ResponseHead, needle

cdef unsigned long long _FORGED
cdef unsigned long long _XFCC
cdef unsigned long long _SERVICE_TIME
cdef tuple _FORGED_NEEDLES
cdef tuple _XFCC_NEEDLES
cdef tuple _SERVICE_TIME_NEEDLES
cdef tuple _HOST_NEEDLES
cdef tuple _ORIGINAL_HOST_NEEDLES

cdef class Prepared:
    cdef readonly tuple gone
    cdef readonly bytes added
    cdef readonly bytes lower
    cdef readonly object formatted

cpdef Prepared prepared(object ops)
@cython.locals(text=bytes, lower=bytes, sought=bytes, at=Py_ssize_t, end=Py_ssize_t)
cpdef bytes without(bytes block, tuple needles)
@cython.locals(pieces=list, at=Py_ssize_t, k=Py_ssize_t, end=Py_ssize_t, octets="const unsigned char*")
cpdef bytes kept(bytes raw, Py_ssize_t first, list cuts)
@cython.locals(block=bytes, forged="unsigned long long", wire=Prepared, first=bytes, octets="const unsigned char*", raw="const unsigned char*")
cpdef bytes request_bytes(RequestHead head, str path, str authority, object ops, bint inbound, bytes extra)
@cython.locals(block=bytes, wire=Prepared, octets="const unsigned char*", raw="const unsigned char*", end=Py_ssize_t,
               first=bytes, cuts=list, begin=Py_ssize_t, after=Py_ssize_t)
cpdef bytes response_bytes(ResponseHead head, object ops, bytes extra)
cpdef at_edge(RequestHead head, str source_ip, int trusted_proxies)
cpdef int count_forwards(RequestHead head) except? -2
cpdef bytes announced(str names)
