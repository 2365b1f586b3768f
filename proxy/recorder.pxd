# Types of recorder.py for Cython.
from .access_line cimport Lines
from .message cimport Outcome
from .metrics cimport Metrics

cdef class Recorder:
    cdef public Metrics metrics
    cdef public Lines log
    cdef public long long count
    cpdef done(self, Outcome outcome)
