# Types of outbox.py for Cython.

cdef class Outbox:
    cdef public object soon
    cdef public list members
    cpdef add(self, member)
    cpdef flush(self)
