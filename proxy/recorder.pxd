# Types of recorder.py for Cython.
from .access_log cimport AccessLog
from .message cimport Outcome
from .metrics cimport Metrics

cdef class Recorder:
    cdef public Metrics metrics
    cdef public AccessLog log
    cpdef done(self, Outcome outcome)
