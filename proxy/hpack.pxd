# Types of hpack.py for Cython.
cimport cython
from .huffman cimport huffman_decode, huffman_encode

cdef bint COMPILED
cdef dict _KINDS
cdef object _HOP
cdef bytes _TOKEN
cdef object _SECRET
cdef dict _never
cdef bint _kept_out(bytes name) except *
cdef bint _is_never(bytes name) except *
cdef Py_ssize_t _NEVER_MOST
cdef object _FRESH
cdef object _UNIQUE
cdef dict _prefixes
cdef list _ONE
cdef Py_ssize_t _OVERHEAD
cdef Py_ssize_t _ENTRY_MOST
cdef Py_ssize_t _LINES_MOST
cdef Py_ssize_t _LINE_MOST
cdef Py_ssize_t _INTEGER_MOST
cdef list _STATIC
cdef dict _STATIC_FIELDS
cdef dict _STATIC_NAMES
cdef int _DROP
cdef int _STATIC_HIT
cdef int _INDEX
cdef int _LITERAL
cdef dict _lines
cdef dict _literals
cdef Py_ssize_t _LITERALS_MOST
cdef Py_ssize_t _LITERAL_MOST
cdef list _INDEXED

@cython.final
@cython.freelist(64)
cdef class Field:
    cdef readonly bytes name
    cdef readonly bytes value
    cdef readonly bint sensitive
    cdef readonly bytes line
    cdef readonly str why
    cdef readonly int kind
    cdef _refuse(self, str why)

@cython.final
cdef class Decoder:
    cdef public Py_ssize_t max_table
    cdef public Py_ssize_t max_list
    cdef public bint too_large
    cdef Py_ssize_t _size_most
    cdef Py_ssize_t _size
    cdef list _table
    cdef bytes _block
    cdef Py_ssize_t _at

    @cython.locals(field=Field, fields=list, size=Py_ssize_t, octets="const unsigned char*", total=Py_ssize_t, begun=bint,
                   first=int)
    cpdef list decode(self, bytes block)
    @cython.locals(octets="const unsigned char*", size=Py_ssize_t, value=Py_ssize_t, shift=int, octet=Py_ssize_t)
    cdef Py_ssize_t _integer(self, Py_ssize_t mask) except -1
    @cython.locals(block=bytes, octets="const unsigned char*", size=Py_ssize_t, length=Py_ssize_t, at=Py_ssize_t, coded=int,
                   text=bytes)
    cdef bytes _string(self)
    @cython.locals(table=list, have=Py_ssize_t)
    cdef Field _entry(self, Py_ssize_t index)
    @cython.locals(name=bytes, value=bytes, start=Py_ssize_t, begin=Py_ssize_t, index=Py_ssize_t, key=bytes, field=Field,
                   octets="const unsigned char*")
    cdef Field _literal(self, Py_ssize_t mask, bint sensitive)
    @cython.locals(length=Py_ssize_t)
    cdef _skip(self)
    @cython.locals(need=Py_ssize_t)
    cdef _insert(self, Field field)
    @cython.locals(table=list, gone=Py_ssize_t, oldest=Field)
    cdef _evict(self, Py_ssize_t most)
    cdef _resize(self, Py_ssize_t size)

@cython.final
cdef class Line:
    cdef int how
    cdef Py_ssize_t size
    cdef bytes octets

cdef bytes _number(int first, int mask, Py_ssize_t value)
@cython.locals(coded=bytes)
cdef bytes _text(bytes text)
@cython.locals(prefix=bytes, size=Py_ssize_t)
cdef bytes _plain(bytes name, bytes value)

@cython.final
cdef class Encoder:
    cdef public Py_ssize_t max_table
    cdef Py_ssize_t _size_most
    cdef Py_ssize_t _size
    cdef Py_ssize_t _count
    cdef list _table
    cdef dict _places
    cdef list _parts
    cdef Py_ssize_t _lowest

    cpdef resize(self, Py_ssize_t size)
    @cython.locals(key=bytes, line=Line)
    cpdef field(self, bytes name, bytes value)
    @cython.locals(size=Py_ssize_t, octets="const unsigned char*", end=Py_ssize_t, key=bytes, line=Line, colon=Py_ssize_t,
                   name=bytes, value=bytes)
    cpdef lines(self, bytes text, Py_ssize_t at)
    @cython.locals(block=bytes, parts=list, told=bytes)
    cpdef bytes take(self)
    cdef Line _new(self, bytes key, bytes name, bytes value)
    @cython.locals(how=int, places=dict, place=object)
    cdef _add(self, Line line)
    cdef _insert(self, Line line)
    @cython.locals(table=list, places=dict, gone=Py_ssize_t, oldest=Line)
    cdef _evict(self, Py_ssize_t most)

cdef Py_ssize_t _crlf(const unsigned char* text, Py_ssize_t at, Py_ssize_t stop)
