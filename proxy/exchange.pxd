# Types of exchange.py for Cython.
cimport cython
from ..policy.tables cimport Arrival, Cluster, ClusterEndpoint, Decision, Destination, HeaderOps, LoadBalancer, PoolLimits, RetryPolicy, Tables
from .cluster cimport LiveCluster
from .core cimport Client, Core
from .headers cimport Prepared, prepared, request_bytes, response_bytes
from .host cimport Host
from .http1 cimport chunk
from .message cimport Outcome, RequestHead, ResponseHead
from .pool cimport Pool, Waiter
from .rate_limit cimport Limiter, LiveLimit
from .upstream cimport Upstream

cdef int NEW
cdef int PAUSED
cdef int WAITING
cdef int SENT
cdef int ANSWERED
cdef int ENDED
cdef int CHECKING
cdef unsigned long long HAS_ID
cdef unsigned long long HAS_PROTO
cdef unsigned long long HAS_TRAILER
cdef unsigned long long HAS_DATE
cdef list _SERVICE_TIMES
cdef dict _timeout_lines

@cython.locals(ms=long)
cdef bytes _service_time(double seconds)
@cython.locals(line=bytes)
cdef bytes _timeout_line(seconds)

cdef class Exchange(Waiter):
    cdef public Core engine
    cdef public Client client
    cdef public RequestHead head
    cdef public Tables tables
    cdef public int phase
    cdef public Decision decision
    cdef public Destination destination
    cdef public Pool pool
    cdef public Upstream upstream
    cdef public object key
    cdef public str path
    cdef public bytes cookie
    cdef public list body
    cdef public Py_ssize_t body_size
    cdef public bint replayable
    cdef public bint request_complete
    cdef public bint response_started
    cdef public bint response_chunked
    cdef public bint continued
    cdef public bint client_close
    cdef public bint two
    cdef public bint upstream_two
    cdef public bint grpc
    cdef public double call_deadline
    cdef public int abort_grpc
    cdef public int retries
    cdef public bint retried_stale
    cdef public bint counts_as_retry
    cdef public list tried
    cdef public list attempted
    cdef public double resume_at
    cdef public bint asked
    cdef public double route_deadline
    cdef public double try_deadline
    cdef public double body_at
    cdef public double rate_at
    cdef public long long rate_bytes
    cdef public Outcome outcome

    @cython.locals(head=RequestHead, path=str, engine=Core)
    cpdef start(self, bytes body, bint complete)
    cpdef token_judged(self, result)
    cdef bint _refuses_token(self, result) except *
    @cython.locals(engine=Core, decision=Decision)
    cdef _decide(self)
    cdef bint _last_stop(self) except *
    @cython.locals(limiter=Limiter, refusing=LiveLimit, now=double, engine=Core)
    cdef bint _limited(self, Decision decision) except *
    cdef bint _fault(self, Decision decision) except *
    cdef bint _abort(self, Decision decision) except *
    @cython.locals(head=RequestHead, verdict=str, destination=Destination, destinations=tuple)
    cdef _carry_out(self, Decision decision)
    @cython.locals(head=RequestHead, decision=Decision, balancer=LoadBalancer)
    cdef _send_to(self, Pool pool)
    cdef _hash(self, LoadBalancer balancer)
    @cython.locals(decision=Decision)
    cdef bint _wanted_later(self) except *
    cdef _keep(self, bytes body)
    cpdef request_body(self, bytes body, bint complete)
    @cython.locals(decision=Decision, retries=RetryPolicy)
    cdef _request_ended(self)
    cdef _begin_two(self, Upstream upstream, bytes text)
    @cython.locals(pool=Pool, upstream=Upstream, live=LiveCluster, host=Host, endpoint=ClusterEndpoint, limits=PoolLimits,
                   config=Cluster)
    cdef _attempt(self)
    cpdef connected(self, upstream)
    @cython.locals(data=bytes, body=list, outcome=Outcome)
    cdef _begin(self, Upstream upstream, double now)
    @cython.locals(head=RequestHead, outcome=Outcome, extra=bytes, inbound=bint, decision=Decision, engine=Core,
                   retries=RetryPolicy, arrival=Arrival, destination=Destination, authority=str)
    cdef bytes _request_head(self, Upstream upstream)
    cpdef _filled(self, ops)
    cdef bytes _expected(self, double per_try_s)
    cdef bint _upgrading(self) except *
    cpdef connect_failed(self, str why)
    @cython.locals(upstream=Upstream)
    cpdef upstream_lost(self, str why, bint malformed=*, bint refused=*)
    cdef _failed(self, str kind, reason, str why)
    cdef bint _retry(self) except *
    @cython.locals(limits=PoolLimits, running=Py_ssize_t)
    cdef bint _retry_fits(self) except *
    cdef _uncount(self)
    cpdef interim(self, ResponseHead head)
    @cython.locals(now=double, outcome=Outcome, status=int, request=RequestHead, extra=bytes, close=bint, data=bytes,
                   live=LiveCluster, destination=Destination, engine=Core)
    cpdef response(self, ResponseHead head, bytes body, bint complete)
    cdef _respond_two(self, ResponseHead head, bytes body, bint complete)
    cdef bytes _response_trailers(self)
    cdef _grpc_answer(self, ResponseHead head, bint complete)
    cdef bytes _last_chunk(self)
    cdef bytes _last_request_chunk(self)
    cpdef response_body(self, bytes body, bint complete)
    @cython.locals(upstream=Upstream)
    cdef bint _retry_status(self, int status, bint complete) except *
    @cython.locals(upstream=Upstream)
    cdef _switch(self, ResponseHead head, bytes body)
    cpdef relay_ended(self, long long received, long long sent)
    @cython.locals(upstream=Upstream)
    cdef _finish(self, double now)
    cdef _end(self)
    @cython.locals(outcome=Outcome)
    cdef _done(self, double now)
    cpdef upstream_full(self, bint full)
    cpdef client_full(self, bint full)
    cdef _reply(self, reason, str why, int status=*, bytes lines=*)
    cdef _own(self, int status, bytes body, str code, bytes lines, ops)
    cdef _own_two(self, int status, bytes body, str code, bytes lines)
    cdef _cut(self, reason, str why)
    @cython.locals(upstream=Upstream)
    cdef _drop_upstream(self)
    cpdef client_lost(self, reason, str why)
    cpdef request_failed(self, reason, str why, int status)
    cdef _resume_reading(self)
    cdef str _too_slow(self, double now)
    cdef double _body_due(self, double now) except *
    cpdef double wake(self, double now) except *
    cdef double _wake_at(self, double now) except *
    cdef double _longest_pause(self) except *
    cdef _timed_out(self)
    cdef _try_timed_out(self, double now)
