# Types of _datagrams.py for Cython, and the system calls that it makes.
cimport cython
from ._fast cimport Finished
from ._limit cimport Limiter

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <arpa/inet.h>
    #include <errno.h>
    #include <netinet/in.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/socket.h>

    enum { FL_BATCH = 64, FL_LARGEST = 4096, FL_CONTROL = 64 };

    typedef struct {
        int replies;
        struct mmsghdr in[FL_BATCH], out[FL_BATCH];
        struct iovec in_parts[FL_BATCH], out_parts[FL_BATCH][2];
        struct sockaddr_storage clients[FL_BATCH];
        unsigned char octets[FL_BATCH][FL_LARGEST];
        union { struct cmsghdr align; unsigned char octets[FL_CONTROL]; } asked[FL_BATCH], from[FL_BATCH];
    } fl_batch;

    /* Where the kernel says which local address was asked; NULL: it does not. */
    static struct cmsghdr *fl_pktinfo(fl_batch *batch, int index) {
        struct msghdr *head = &batch->in[index].msg_hdr;
        struct cmsghdr *part;
        if (head->msg_controllen == 0) return NULL;
        for (part = CMSG_FIRSTHDR(head); part != NULL; part = CMSG_NXTHDR(head, part)) {
            if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) return part;
            if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) return part;
        }
        return NULL;
    }

    /* The same as octets, for a reply that takes longer. */
    static PyObject *fl_local(fl_batch *batch, int index) {
        struct cmsghdr *part = fl_pktinfo(batch, index);
        if (part == NULL) return PyBytes_FromStringAndSize(NULL, 0);
        return PyBytes_FromStringAndSize((char *) CMSG_DATA(part),
            part->cmsg_level == IPPROTO_IP ? sizeof(struct in_pktinfo) : sizeof(struct in6_pktinfo));
    }

    /* What the client is counted under: /24, /56. */
    static PyObject *fl_network(fl_batch *batch, int index) {
        struct sockaddr_storage *client = &batch->clients[index];
        if (client->ss_family == AF_INET6) {
            unsigned char *six = ((struct sockaddr_in6 *) client)->sin6_addr.s6_addr;
            if (IN6_IS_ADDR_V4MAPPED(&((struct sockaddr_in6 *) client)->sin6_addr))
                return PyBytes_FromStringAndSize((char *) six + 12, 3);
            return PyBytes_FromStringAndSize((char *) six, 7);
        }
        return PyBytes_FromStringAndSize((char *) &((struct sockaddr_in *) client)->sin_addr, 3);
    }

    /* How many datagrams were read; 0 where none waits. */
    static int fl_receive(fl_batch *batch, int fd) {
        int index, count;
        for (index = 0; index < FL_BATCH; index++) {
            struct msghdr *head = &batch->in[index].msg_hdr;
            batch->in_parts[index].iov_base = batch->octets[index];
            batch->in_parts[index].iov_len = FL_LARGEST;
            head->msg_name = &batch->clients[index];
            head->msg_namelen = sizeof(struct sockaddr_storage);
            head->msg_iov = &batch->in_parts[index];
            head->msg_iovlen = 1;
            head->msg_control = batch->asked[index].octets;
            head->msg_controllen = FL_CONTROL;
        }
        batch->replies = 0;
        count = recvmmsg(fd, batch->in, FL_BATCH, MSG_DONTWAIT, NULL);
        return count < 0 ? 0 : count;
    }

    static Py_ssize_t fl_size(fl_batch *batch, int index) { return batch->in[index].msg_len; }

    static PyObject *fl_message(fl_batch *batch, int index) {
        return PyBytes_FromStringAndSize((char *) batch->octets[index], batch->in[index].msg_len);
    }

    /* What follows the ID. */
    static PyObject *fl_key(fl_batch *batch, int index) {
        return PyBytes_FromStringAndSize((char *) batch->octets[index] + 2, batch->in[index].msg_len - 2);
    }

    /* The address as Python's sockets write it. */
    static PyObject *fl_client(fl_batch *batch, int index) {
        char text[INET6_ADDRSTRLEN] = "";
        struct sockaddr_storage *client = &batch->clients[index];
        if (client->ss_family == AF_INET6) {
            struct sockaddr_in6 *six = (struct sockaddr_in6 *) client;
            inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
            return Py_BuildValue("(siIk)", text, (int) ntohs(six->sin6_port), ntohl(six->sin6_flowinfo),
                                 (unsigned long) six->sin6_scope_id);
        }
        struct sockaddr_in *four = (struct sockaddr_in *) client;
        inet_ntop(AF_INET, &four->sin_addr, text, sizeof text);
        return Py_BuildValue("(si)", text, (int) ntohs(four->sin_port));
    }

    /* Queue a reply to datagram `index`: its own ID, then `body` from octet `skip` on. `body` must stay until sent. */
    static void fl_reply(fl_batch *batch, int index, PyObject *body, int skip) {
        struct iovec *parts = batch->out_parts[batch->replies];
        struct cmsghdr *asked = fl_pktinfo(batch, index), *from;
        struct msghdr *head = &batch->out[batch->replies].msg_hdr;
        parts[0].iov_base = batch->octets[index];
        parts[0].iov_len = 2;
        parts[1].iov_base = PyBytes_AS_STRING(body) + skip;
        parts[1].iov_len = PyBytes_GET_SIZE(body) - skip;
        memset(head, 0, sizeof *head);
        head->msg_name = &batch->clients[index];
        head->msg_namelen = batch->in[index].msg_hdr.msg_namelen;
        head->msg_iov = parts;
        head->msg_iovlen = 2;
        if (asked != NULL) {
            from = &batch->from[batch->replies].align;
            memcpy(from, asked, asked->cmsg_len);
            if (asked->cmsg_level == IPPROTO_IP) {  /* from the local address, by whatever interface leads there */
                struct in_pktinfo *info = (struct in_pktinfo *) CMSG_DATA(from);
                info->ipi_spec_dst.s_addr = ((struct in_pktinfo *) CMSG_DATA(asked))->ipi_spec_dst.s_addr;
                info->ipi_addr.s_addr = 0;
            }
            head->msg_control = from;
            head->msg_controllen = CMSG_SPACE(asked->cmsg_len - CMSG_LEN(0));
        }
        batch->replies++;
    }

    /* Send what is queued; how many replies could not be. */
    static int fl_send(fl_batch *batch, int fd) {
        int done = 0, failed = 0;
        while (done < batch->replies) {
            int sent = sendmmsg(fd, batch->out + done, batch->replies - done, MSG_DONTWAIT);
            if (sent > 0) {
                done += sent;
            } else if (errno == EAGAIN || errno == ENOBUFS) {
                return failed + batch->replies - done;  /* no room: the clients will ask again */
            } else if (errno != EINTR) {
                done++;  /* this client cannot be reached; the others can */
                failed++;
            }
        }
        return failed;
    }
    """
    ctypedef struct fl_batch:
        pass
    int fl_receive(fl_batch *batch, int fd) nogil
    Py_ssize_t fl_size(fl_batch *batch, int index) nogil
    bytes fl_message(fl_batch *batch, int index)
    bytes fl_key(fl_batch *batch, int index)
    bytes fl_local(fl_batch *batch, int index)
    bytes fl_network(fl_batch *batch, int index)
    tuple fl_client(fl_batch *batch, int index)
    void fl_reply(fl_batch *batch, int index, bytes body, int skip)
    int fl_send(fl_batch *batch, int fd) nogil

cdef bint COMPILED

cdef class Datagrams:
    cdef public long long failed
    cdef public Limiter limiter
    cdef public object log
    cdef object _sock
    cdef int _fd
    cdef Finished _finished
    cdef object _make
    cdef object _measured
    cdef object _clock
    cdef list _held
    cdef fl_batch _batch[1]

    cpdef read(self)
    cdef int _read_each(self, double start) except -1
    @cython.locals(count=int, index=int, skip=int, verdict=int, finished=Finished, limiter=Limiter, held=list,
                   body=bytes, key=bytes, message=bytes, network=bytes)
    cdef int _read_batch(self, double start) except -1
