# Types of wire.py for Cython, and the system calls that it makes.
cimport cython
from .poller cimport Poller, Protocol, Transport

cdef extern from *:
    """
    #include <errno.h>
    #include <sys/socket.h>

    enum { FL_OCTETS = 256 * 1024 };
    static char fl_octets[FL_OCTETS];
    static Py_ssize_t fl_have, fl_sent;
    static int fl_code;

    /* What there is to read, as bytes; empty: the end. Sets an OSError. */
    static PyObject *fl_receive(int fd) {
        Py_ssize_t size;
        do {
            size = recv(fd, fl_octets, FL_OCTETS, MSG_DONTWAIT);
        } while (size < 0 && errno == EINTR);
        if (size < 0) return PyErr_SetFromErrno(PyExc_OSError);
        return PyBytes_FromStringAndSize(fl_octets, size);
    }

    /* How many octets of `data` from `at` on were taken. Sets an OSError. */
    static Py_ssize_t fl_send(int fd, PyObject *data, Py_ssize_t at) {
        Py_ssize_t size;
        do {
            size = send(fd, PyBytes_AS_STRING(data) + at, PyBytes_GET_SIZE(data) - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        } while (size < 0 && errno == EINTR);
        if (size < 0) {
            if (errno == EAGAIN) return 0;
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        return size;
    }

    /* From one socket to another; how many octets came, 0: the end. Sets an OSError where they could not be read. */
    static Py_ssize_t fl_pass(int from, int to) {
        Py_ssize_t sent;
        do {
            fl_have = recv(from, fl_octets, FL_OCTETS, MSG_DONTWAIT);
        } while (fl_have < 0 && errno == EINTR);
        if (fl_have < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        fl_sent = fl_code = 0;
        if (!fl_have) return 0;
        do {
            sent = send(to, fl_octets, fl_have, MSG_DONTWAIT | MSG_NOSIGNAL);
        } while (sent < 0 && errno == EINTR);
        if (sent >= 0) fl_sent = sent;
        else if (errno != EAGAIN) fl_code = errno;
        return fl_have;
    }
    static int fl_error(void) { return fl_code; }
    static int fl_short(void) { return fl_sent < fl_have; }

    /* What was read and not sent. */
    static PyObject *fl_rest(void) { return PyBytes_FromStringAndSize(fl_octets + fl_sent, fl_have - fl_sent); }
    """
    bytes fl_receive(int fd)
    Py_ssize_t fl_send(int fd, bytes data, Py_ssize_t at) except -1
    Py_ssize_t fl_pass(int source, int to) except -1
    int fl_error() nogil
    int fl_short() nogil
    bytes fl_rest()

cdef bint COMPILED
cdef int _IN
cdef int _OUT
cdef Py_ssize_t _READ
cdef int _READS
cdef Py_ssize_t _PUT_OFF

cdef class Tally(Protocol):
    cdef public long long count
    cdef public bint moved

cdef class Wire(Transport):
    cdef public Poller poller
    cdef public object sock
    cdef public object protocol
    cdef Protocol _typed
    cdef public bint closing
    cdef public bint paused
    cdef public Py_ssize_t high
    cdef public Py_ssize_t low
    cdef Wire _peer
    cdef Tally _tally
    cdef int _fd
    cdef unsigned int _watched
    cdef bint _ended
    cdef bytes _put_off
    cdef list _waiting
    cdef Py_ssize_t _at
    cdef Py_ssize_t _size
    cdef bint _told_full
    cdef bint _eof
    cdef object _error
    cdef bint _over
    cdef dict _extra

    cdef _watch(self, unsigned int events)
    @cython.locals(data=bytes, peer=Wire, left=int, typed=Protocol)
    cpdef readable(self)
    cpdef pass_to(self, Wire peer, Tally tally)
    @cython.locals(have=Py_ssize_t, code=int, tally=Tally)
    cdef bint _pass(self, Wire peer) except *
    cdef _end(self)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    @cython.locals(put_off=bytes)
    cpdef write(self, bytes data)
    @cython.locals(data=bytes)
    cpdef flush(self)
    @cython.locals(size=Py_ssize_t, sent=Py_ssize_t)
    cdef _send(self, bytes data)
    cdef _keep(self, bytes data, Py_ssize_t at)
    @cython.locals(waiting=list, at=Py_ssize_t, done=Py_ssize_t, data=bytes, sent=Py_ssize_t)
    cpdef writable(self)
    cdef _shut(self)
    cpdef close(self)
    cpdef abort(self)
    cdef _fail(self, error)
    cdef _finish(self)
    cpdef bint is_closing(self)
