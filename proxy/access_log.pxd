# Types of access_log.py for Cython.
from .message cimport Outcome


cdef class AccessLog:
    cdef object _line
    cdef object _waiting
    cdef public Py_ssize_t lines
    cdef public Py_ssize_t dropped
    cpdef add(self, Outcome outcome)
