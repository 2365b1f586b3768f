# Types of poller.py for Cython, and the system calls that it makes.
cimport cython

cdef extern from *:
    """
    #include <sys/epoll.h>

    enum { FL_EVENTS = 256 };
    static struct epoll_event fl_events[FL_EVENTS];

    static int fl_wait(int fd) {
        int count = epoll_wait(fd, fl_events, FL_EVENTS, 0);
        return count < 0 ? 0 : count;
    }
    static int fl_fd(int index) { return fl_events[index].data.fd; }
    static unsigned int fl_ready(int index) { return fl_events[index].events; }

    #include <stdlib.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    static int fl_malloc_trim(void) {  /* takes milliseconds: called in a thread */
        int done;
        Py_BEGIN_ALLOW_THREADS
        done = malloc_trim(0);
        Py_END_ALLOW_THREADS
        return done;
    }
    static int fl_mallopt(int option, int value) { return mallopt(option, value); }
    #else
    static int fl_malloc_trim(void) { return 0; }
    static int fl_mallopt(int option, int value) { return 0; }
    #endif
    """
    int fl_malloc_trim()
    int fl_mallopt(int option, int value)
    int fl_wait(int fd) nogil
    int fl_fd(int index) nogil
    unsigned int fl_ready(int index) nogil

cdef bint COMPILED
cpdef bint malloc_trim() except *
cpdef bint mallopt(int option, int value) except *
cdef int _IN
cdef int _OUT

cdef class Protocol:
    cpdef data_received(self, bytes data)

cdef class Watcher(Protocol):
    cpdef readable(self)
    cpdef writable(self)
    cpdef flush(self)
    cpdef broken(self, error)

cdef class Transport(Watcher):
    cpdef write(self, bytes data)

cdef class Listener(Watcher):
    cdef public Poller poller
    cdef public object sock
    cdef public object accepted
    cdef public Py_ssize_t taken
    cdef object _timer

    cpdef accept_rest(self)

cdef class Poller:
    cdef public object loop
    cdef public bint closed
    cdef public list watchers
    cdef public bint turning
    cdef public bint gathering
    cdef public list flushes
    cdef list _later
    cdef object _epoll
    cdef int _fd

    cpdef watch(self, int fd, Watcher watcher, unsigned int events)
    cpdef change(self, int fd, unsigned int events)
    @cython.locals(watchers=list)
    cpdef give(self, int fd, Watcher watcher)
    cpdef forget(self, int fd)
    cpdef soon(self, callback)
    @cython.locals(later=list, flushes=list, watcher=Watcher)
    cpdef turn(self)
    @cython.locals(count=int, index=int)
    cdef _take(self)
    @cython.locals(watcher=Watcher)
    cdef _ready(self, int fd, unsigned int events)
