# Types of huffman.py for Cython.
cimport cython

cdef const unsigned char* _lengths
cdef const unsigned char* _following
cdef const unsigned char* _symbols
cdef const unsigned char* _flags
cdef const unsigned char* _ends
cdef const unsigned char* _code_octets

@cython.locals(octets="const unsigned char*", out=bytearray, text="unsigned char*", made=Py_ssize_t, state=int, octet=int,
               step=int, flag=int, half=int)
cpdef bytes huffman_decode(bytes block, Py_ssize_t at, Py_ssize_t stop)
@cython.locals(octets="const unsigned char*", size=Py_ssize_t, bits=Py_ssize_t, out=bytearray, coded="unsigned char*",
               acc="unsigned long long", held=int, made=Py_ssize_t, symbol=int, at=int, code="unsigned long long",
               k=Py_ssize_t)
cpdef bytes huffman_encode(bytes text)
