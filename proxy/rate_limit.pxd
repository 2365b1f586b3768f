# Types of rate_limit.py for Cython.
cimport cython
from ..policy.tables cimport Arrival
from .message cimport RequestHead

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* The address of a place in shared memory of doubles, which outlives the buckets in it. */
    static unsigned long long fl_address(PyObject *memory, Py_ssize_t place) {
        Py_buffer view;
        unsigned long long at;
        if (PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE) < 0) return 0;
        at = (unsigned long long)(uintptr_t) ((double *) view.buf + place);
        PyBuffer_Release(&view);
        return at;
    }

    /* Moves the double at `address` from `before` to `after`, unless another process was faster. */
    static int fl_swap(unsigned long long address, double *before, double after) {
        uint64_t was, will;
        memcpy(&was, before, 8);
        memcpy(&will, &after, 8);
        if (__atomic_compare_exchange_n((uint64_t *)(uintptr_t) address, &was, will, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            return 1;
        memcpy(before, &was, 8);
        return 0;
    }

    static double fl_read(unsigned long long address) {
        uint64_t bits = __atomic_load_n((uint64_t *)(uintptr_t) address, __ATOMIC_ACQUIRE);
        double value;
        memcpy(&value, &bits, 8);
        return value;
    }

    static int fl_take(unsigned long long address, double now, double window, double cost, double rounding) {
        double before = fl_read(address), after;
        do {
            after = (before > now - window ? before : now - window) + cost;
            if (after > now + rounding) return 0;
        } while (!fl_swap(address, &before, after));
        return 1;
    }

    static void fl_give(unsigned long long address, double cost) {
        double before = fl_read(address);
        while (!fl_swap(address, &before, before - cost)) {}
    }
    """
    unsigned long long fl_address(object memory, Py_ssize_t place) except? 0
    bint fl_take(unsigned long long address, double now, double window, double cost, double rounding) nogil
    void fl_give(unsigned long long address, double cost) nogil

cdef bint COMPILED
cdef double ROUNDING_S

cdef class Bucket:
    cdef public double cost_s
    cdef public double window_s
    cdef double _empty_at
    cdef object _memory
    cdef Py_ssize_t _place
    cdef unsigned long long _address

    @cython.locals(before=double, after=double)
    cpdef bint take(self, double now) except *
    cpdef give_back(self)
    @cython.locals(before=double)
    cpdef double wait_s(self, double now) except *
    @cython.locals(before=double)
    cpdef bint full(self, double now) except *

cdef class LiveLimit:
    cdef public object limit
    cdef public double cost_s
    cdef public long long allowed
    cdef public long long limited
    cdef public long long over
    cdef public Bucket bucket
    cdef public dict clients
    cdef public Bucket others
    cdef public bytes lines
    cdef double _forgotten_at

    cpdef update(self, limit)
    @cython.locals(bucket=Bucket, own=dict)
    cpdef Bucket bucket_of(self, Arrival arrival, double now)
    cdef bint _make_room(self, double now) except *

cdef class Limiter:
    cdef public object cell_of
    cdef dict _requests
    cdef dict _connections

    @cython.locals(limits=tuple, live=LiveLimit, counted=list)
    cpdef LiveLimit request(self, RequestHead head, decision, double now, draw)
    @cython.locals(limits=tuple, live=LiveLimit, counted=list)
    cpdef LiveLimit connection(self, str listener, Arrival arrival, double now, draw)
    @cython.locals(bucket=Bucket, live=LiveLimit, taken=list, over=list)
    cdef LiveLimit _count(self, list limits, Arrival arrival, double now, draw)
