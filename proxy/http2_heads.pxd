# Types of http2_heads.py for Cython.
cimport cython
from .hpack cimport Field
from .http1 cimport RequestParser, ResponseParser
from .message cimport RequestHead, ResponseHead

cdef bytes _VALUE
cdef dict _STATUS_LINES

@cython.locals(field=Field, kind=int, method=bytes, path=bytes, scheme=bytes, authority=bytes, host=bytes, lines=list,
               cookies=list, parser=RequestParser, head=RequestHead)
cpdef RequestHead request_head(list fields, bint ended)
@cython.locals(field=Field, kind=int, lines=list, parser=ResponseParser, head=ResponseHead, first=bytes)
cpdef ResponseHead response_head(list fields, str method, bint ended)
@cython.locals(field=Field, lines=list)
cpdef bytes checked_trailers(list fields, bint ended)
