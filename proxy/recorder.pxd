# Types of recorder.py for Cython.
from .message cimport Outcome
from .metrics cimport Metrics

cdef class Waiting:
    cdef public object outcomes
    cdef public Py_ssize_t dropped
    cpdef add(self, Outcome outcome)

cdef class Recorder:
    cdef public Metrics metrics
    cdef public Waiting log
    cpdef done(self, Outcome outcome)
