# Types of http1.py for Cython.
cimport cython
from .message cimport Head, RequestHead, ResponseHead, crlf_at, needle

cdef bint COMPILED
cdef int HEAD
cdef int LENGTH
cdef int CHUNK_SIZE
cdef int CHUNK_DATA
cdef int CHUNK_END
cdef int TRAILERS
cdef int UNTIL_CLOSE
cdef int TUNNEL
cdef int DONE
cdef int N_HOST
cdef int N_LENGTH
cdef int N_CODING
cdef int N_CONNECTION
cdef int N_UPGRADE
cdef int N_EXPECT
cdef int N_TE
cdef int N_LAST_CUT
cdef int N_SERVICE_TIME
cdef bytes _TCHAR
cdef bytes _TARGET
cdef bytes _VALUE
cdef bytes _PLAIN
cdef bytes _HEX
cdef object _STATUS_LINE
cdef object _ABSOLUTE
cdef int _HASH_A
cdef int _HASH_B
cdef const unsigned char* _classes
cdef const unsigned char* _lower
cdef const unsigned char* _slots
cdef const unsigned char* _known_text
cdef const unsigned char* _known_lengths
cdef dict _hosts
cdef dict _names
cdef dict _METHODS

cpdef bytes chunk(bytes data)
@cython.locals(octet=cython.uchar)
cdef Py_ssize_t _empty_line(const unsigned char* text, Py_ssize_t at, Py_ssize_t stop)
cdef Py_ssize_t _blank_at(const unsigned char* text, Py_ssize_t at, Py_ssize_t stop) noexcept
@cython.locals(number="long long", k=Py_ssize_t, octet=cython.uchar)
cdef long long _digits(const unsigned char* text, Py_ssize_t size) noexcept
cdef bint _all_of(const unsigned char* text, Py_ssize_t start, Py_ssize_t stop, int kind)

@cython.locals(at=Py_ssize_t, end=Py_ssize_t, shift=Py_ssize_t, k=Py_ssize_t, lower=bytes, sought=bytes)
cdef _cut_named(Head head, str name)

cdef class Parser:
    cdef public Py_ssize_t max_head
    cdef public Py_ssize_t max_headers
    cdef public int state
    cdef public bint complete
    cdef public bytes trailers
    cdef bytes _buffer
    cdef Py_ssize_t _at
    cdef Py_ssize_t _searched
    cdef long long _left
    cdef long long _excess
    cdef bint _serves
    cdef bint _may_skip
    cdef bytes _host
    cdef bytes _length
    cdef bytes _coding
    cdef bytes _connection
    cdef bytes _upgrade
    cdef bytes _expect

    cpdef feed(self, bytes data)
    cpdef Py_ssize_t unread(self)
    @cython.locals(octets="const unsigned char*", rest=bytes)
    cpdef bytes take_rest(self)
    cpdef next_message(self)

    @cython.locals(buffer=bytes, at=Py_ssize_t, size=Py_ssize_t, end=Py_ssize_t)
    cdef Py_ssize_t _find_head(self) except -2
    cdef _skip_line(self)
    cdef _check_folded(self, bytes raw, Py_ssize_t start, Py_ssize_t stop)
    cdef _check_part(self, bytes buffer, Py_ssize_t at, Py_ssize_t size)
    cdef _scan(self, Head head, bytes raw, Py_ssize_t start)
    @cython.locals(text="const unsigned char*", count=Py_ssize_t, start=Py_ssize_t, length=Py_ssize_t, slot=int,
                   number=int, base=int, k=Py_ssize_t, value=Py_ssize_t, stop=Py_ssize_t)
    cdef _scan_bytes(self, Head head, bytes raw, Py_ssize_t i, Py_ssize_t end)
    cdef _scan_lines(self, Head head, bytes raw, Py_ssize_t start)
    cdef _bad_line(self, bytes raw, Py_ssize_t start)
    @cython.locals(bit="unsigned long long", text=bytes, member=bytes, octets="const unsigned char*", twice="unsigned long long", cuts=list)
    cdef _note(self, Head head, int number, bytes raw, Py_ssize_t start, Py_ssize_t value, Py_ssize_t stop,
               Py_ssize_t after)
    @cython.locals(options=bytes, option=bytes, upgrade=bint, close=bint, named=list)
    cdef _read_connection(self, Head head)
    @cython.locals(length="long long")
    cdef _start_body(self, Head head)
    cpdef _error(self, str why, object reason=*, int status=*)

    @cython.locals(have=Py_ssize_t, out=bytes, octets="const unsigned char*")
    cpdef bytes read_body(self)
    @cython.locals(have=Py_ssize_t, take=Py_ssize_t, pieces=list, end=bytes)
    cdef bytes _read_chunks(self)
    @cython.locals(buffer=bytes, end=Py_ssize_t, line=bytes, semicolon=Py_ssize_t, part=bytes, extension=bytes)
    cdef bint _read_chunk_size(self) except -1
    cdef _read_trailers(self)

cdef class RequestParser(Parser):
    cdef public Py_ssize_t max_target
    @cython.locals(end=Py_ssize_t, raw=bytes, head=RequestHead, line_end=Py_ssize_t, octets="const unsigned char*")
    cpdef RequestHead read_head(self)
    @cython.locals(first=Py_ssize_t, last=Py_ssize_t, version=bytes, method=bytes, target=bytes,
                   text="const unsigned char*")
    cdef _read_request_line(self, RequestHead head, bytes raw, Py_ssize_t line_end)
    @cython.locals(expected=bytes)
    cdef _read_expect(self, RequestHead head)
    @cython.locals(target=str)
    cdef _read_target(self, RequestHead head)
    cdef _read_connect(self, RequestHead head, str target)

cdef class ResponseParser(Parser):
    cdef str _method
    cdef int _interim
    cpdef expect(self, str method)
    @cython.locals(end=Py_ssize_t, raw=bytes, head=ResponseHead, line_end=Py_ssize_t, octets="const unsigned char*")
    cpdef ResponseHead read_head(self)
    cdef _read_framing(self, ResponseHead head)
    cpdef eof(self)
