# Types of decide.py for Cython.
cimport cython
from .match cimport Arm, HttpMatch
from .tables cimport Arrival, Decision, Destination, LoadBalancer, Tables, Verdict

cdef int MEMO_MAX

@cython.locals(arrival=Arrival, authority=str, target=str, path=str, query=str, mark=Py_ssize_t, memo=dict, match=HttpMatch, arm=Arm, only=Decision, arms=tuple, known=tuple,
               made=Decision, gateway=bint, refusal=Decision)
cpdef Decision decide(Tables tables, request, trace=*)
@cython.locals(key=tuple, found=tuple, memo=dict)
cdef tuple _admission(object inbound, Arrival arrival, trace=*)
@cython.locals(arrival=Arrival, verdict=Verdict, decision=Decision)
cdef Decision _decide_inbound(object inbound, request, trace)
@cython.locals(arrival=Arrival, verdict=Verdict)
cdef Decision _gateway_refusal(object inbound, request, trace)
@cython.locals(destinations=tuple, left=double, destination=Destination)
cpdef Destination pick(Decision decision, double draw)
