# Types of http2.py for Cython.
cimport cython
from .hpack cimport Decoder, Encoder
from .message cimport RequestHead, ResponseHead
from .http2_heads cimport checked_trailers, request_head, response_head

cdef int DATA
cdef int HEADERS
cdef int PRIORITY
cdef int RST_STREAM
cdef int SETTINGS
cdef int PUSH_PROMISE
cdef int PING
cdef int GOAWAY
cdef int WINDOW_UPDATE
cdef int CONTINUATION
cdef int END_STREAM
cdef int ACK
cdef int END_HEADERS
cdef int PADDED
cdef int WITH_PRIORITY
cdef int TABLE_SIZE
cdef int ENABLE_PUSH
cdef int MAX_CONCURRENT
cdef int INITIAL_WINDOW
cdef int MAX_FRAME
cdef int MAX_LIST
cdef Py_ssize_t PIECE
cdef Py_ssize_t WORTH
cdef Py_ssize_t CONTROLS_A_SECOND
cdef Py_ssize_t RESETS_A_SECOND
cdef object _NUMBER
cdef object _SETTING
cdef object _TWO

@cython.freelist(64)
cdef class Stream:
    cdef public unsigned int id
    cdef public object owner
    cdef public str method
    cdef public object queue
    cdef public Py_ssize_t offset
    cdef public Py_ssize_t queued
    cdef public Py_ssize_t unconsumed
    cdef public Py_ssize_t unasked
    cdef public long long window_in
    cdef public long long window_most
    cdef public long long extra
    cdef public long long left
    cdef public int interims
    cdef public bint headed
    cdef public bint local_closed
    cdef public bint remote_closed
    cdef public bint gone

cdef class Http2:
    cdef public object handler
    cdef public bint client
    cdef public object limits
    cdef public dict streams
    cdef public Py_ssize_t queued
    cdef public Py_ssize_t pending
    cdef public long long peer_max_concurrent
    cdef public bint peer_settings_seen
    cdef public bint goaway_sent
    cdef public bint goaway_received
    cdef Decoder _decoder
    cdef Encoder _encoder
    cdef bytearray _out
    cdef list _pieces
    cdef bytes _rest
    cdef bint _preface
    cdef bint _dead
    cdef bint _acked
    cdef unsigned int _next_id
    cdef unsigned int _highest
    cdef unsigned int _last_id
    cdef Py_ssize_t _resets
    cdef dict _ours
    cdef Py_ssize_t _controls
    cdef double _forgiven
    cdef list _block
    cdef unsigned int _block_of
    cdef Py_ssize_t _block_size
    cdef bint _block_ends
    cdef dict _blocked
    cdef long long _window_in
    cdef Py_ssize_t _unasked
    cdef Py_ssize_t _half
    cdef Py_ssize_t _stream_window
    cdef Py_ssize_t _more
    cdef Py_ssize_t _grown
    cdef Py_ssize_t _grown_most
    cdef Py_ssize_t _pings
    cdef long long _window_out
    cdef long long _initial_out
    cdef Py_ssize_t _frame_out
    cdef Py_ssize_t _resets_most
    cdef Py_ssize_t _controls_most

    @cython.locals(out=bytearray, pieces=list, data=bytes)
    cpdef bytes output(self)
    @cython.locals(size=Py_ssize_t, at=Py_ssize_t, start=Py_ssize_t, length=Py_ssize_t, kind=int, flags=int,
                   number="unsigned int", octets="const unsigned char*")
    cpdef receive(self, bytes data)
    cdef _take(self, int kind, int flags, unsigned int number, bytes data, Py_ssize_t start, Py_ssize_t stop)
    cdef _broken(self, str why, int code)
    cdef _moves_nothing(self)
    cdef void _moved(self) noexcept
    cdef void _forgive(self, Py_ssize_t controls) noexcept
    cdef _count_resets(self, Py_ssize_t cost)
    cdef bint _is_idle(self, unsigned int number) noexcept
    @cython.locals(length=Py_ssize_t, out=bytearray)
    cdef _frame(self, int kind, int flags, unsigned int number, bytes payload)
    @cython.locals(sent=Py_ssize_t)
    cpdef send(self, Stream stream, bytes data, bint end)
    cpdef send_trailers(self, Stream stream, bytes block)
    cdef _send_trailers(self, Stream stream, bytes block)
    @cython.locals(size=Py_ssize_t, room="long long", left=Py_ssize_t)
    cdef Py_ssize_t _send_data(self, Stream stream, bytes data, Py_ssize_t at, bint last) except -2
    @cython.locals(data=bytes, before=Py_ssize_t, sent=Py_ssize_t, moved=Py_ssize_t)
    cdef _pump(self, Stream stream)
    cdef _pump_all(self)
    @cython.locals(block=bytes, most=Py_ssize_t, at=Py_ssize_t)
    cdef _send_block(self, unsigned int number, bint end)
    cdef _local_end(self, Stream stream)
    cdef _ended(self, Stream stream)
    @cython.locals(octets=Py_ssize_t)
    cdef _forget(self, Stream stream)
    cpdef reset(self, Stream stream, unsigned int code)
    cpdef consumed(self, Stream stream, Py_ssize_t octets)
    cdef _give_back(self, Py_ssize_t octets)
    @cython.locals(more=Py_ssize_t)
    cdef _give_stream(self, Stream stream, Py_ssize_t octets)
    cpdef announce_end(self)
    cpdef shutdown(self, int code=*)
    cpdef ping(self, bytes payload)
    cpdef respond(self, Stream stream, bytes text, bint end)
    @cython.locals(line=bytes, method=bytes, target=bytes, stream=Stream, encoder=Encoder, line_end=Py_ssize_t)
    cpdef Stream open(self, bytes text, str scheme, bint end, owner)
    cdef _fault(self, Stream stream, int code, str why)
    @cython.locals(window=object)
    cdef _closed_stream(self, unsigned int number, Py_ssize_t octets, bint ended)
    cdef _say_reset(self, unsigned int number, unsigned int code, bint ended, long long window)
    @cython.locals(whole=Py_ssize_t)
    cpdef calm(self, double seconds)
    @cython.locals(length=Py_ssize_t, padding=Py_ssize_t, size=Py_ssize_t, piece=bytes, stream=Stream, ended=bint,
                   octets="const unsigned char*")
    cdef _take_data(self, int flags, unsigned int number, bytes data, Py_ssize_t start, Py_ssize_t stop)
    @cython.locals(padding=Py_ssize_t, block=bytes)
    cdef _take_headers(self, int flags, unsigned int number, bytes data, Py_ssize_t start, Py_ssize_t stop)
    cdef _take_continuation(self, int flags, bytes piece)
    @cython.locals(fields=list, stream=Stream)
    cdef _take_block(self, unsigned int number, bytes block, bint ended)
    @cython.locals(stream=Stream, head=RequestHead)
    cdef _request(self, unsigned int number, list fields, bint ended, bint large)
    cdef _refuse(self, Stream stream, int code, str why)
    @cython.locals(head=ResponseHead)
    cdef _response(self, Stream stream, list fields, bint ended)
    cdef _trailers(self, Stream stream, list fields, bint ended)
    @cython.locals(stream=Stream)
    cdef _take_reset(self, unsigned int number, bytes payload)
    @cython.locals(stream=Stream, octets="long long")
    cdef _take_window(self, unsigned int number, bytes payload)
    cdef _take_settings(self, int flags, unsigned int number, bytes payload)
    cdef _set(self, int setting, long long value)
    cdef _take_ping(self, int flags, unsigned int number, bytes payload)
    cdef _take_goaway(self, unsigned int number, bytes payload)

@cython.locals(at=Py_ssize_t)
cdef bytes _authority(bytes text, Py_ssize_t line_end)
