# Types of _fast.py for Cython.

cdef class Entry:
    cdef public tuple variants
    cdef public Py_ssize_t turn
    cdef public long long hits
    cdef public tuple depends
    cdef public object label
    cdef public bint whole

    cpdef bytes next(self)

cdef class Finished:
    cdef public Py_ssize_t size
    cdef public dict young
    cdef public dict old
    cdef public dict _young_names
    cdef public dict _old_names
    cdef public dict _counts

    cpdef bytes get(self, bytes message)
    cpdef bytes find(self, bytes key)
    cdef _count(self, Entry entry)
    cdef _keep(self, bytes key, Entry entry)
    cdef _promote(self, bytes key)
    cdef _drop(self, bytes key)
