# Types of match.py for Cython.
cimport cython
from .tables cimport Decision

cdef class TextTest:
    cdef public object holds
    cdef public str kind
    cdef public str value

cdef class Condition:
    cpdef bint holds(self, request, str query) except *

cdef class _Field(Condition):
    cdef str _name
    cdef TextTest _test

cdef class _Header(Condition):
    cdef str _name
    cdef bint _present
    cdef TextTest _test
    cdef str _exact
    @cython.locals(value=str)
    cpdef bint holds(self, request, str query) except *

cdef class _WithoutHeader(Condition):
    cdef str _name
    cdef bint _absent
    cdef TextTest _test

cdef class _Query(Condition):
    cdef str _name
    cdef TextTest _test

cdef class _Claim(Condition):
    cdef str _name
    cdef list _path
    cdef TextTest _test
    cdef bint _negate

cdef class HttpMatch:
    cdef public TextTest uri
    cdef public int uri_kind
    cdef public str uri_value
    cdef public bint ignore_case
    cdef public str name
    cdef public int number
    cdef public tuple conditions
    cdef public Py_ssize_t uri_length

    @cython.locals(kind=int, condition=Condition)
    cpdef bint holds(self, request, str path, str query) except *

cdef class Arm:
    cdef public HttpMatch match
    cdef public Decision decision
    cdef public object change
    cdef public int index
    cdef public str label
    cdef public bint unconditional

cpdef header_value(request, str name)
cpdef list header_values(request, str name)
cpdef str scheme_of(request)
@cython.locals(part=str)
cpdef query_parameter(str query, str name)
