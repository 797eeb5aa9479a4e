cimport cython

cdef int _SKIP, _FIRST, _SELECT, _COLLECT
cdef long long _MAX_KEPT

cdef class Command:
    cdef readonly long long database
    cdef readonly long long offset
    cdef readonly list args

cdef class WriteReader:
    cdef public dict databases
    cdef public list others
    cdef readonly long long position
    cdef readonly long long commands
    cdef readonly long long database
    cdef dict _current
    cdef bytes _rest
    cdef long long _offset
    cdef long long _left
    cdef long long _skip
    cdef int _kind
    cdef bytes _key
    cdef list _args

    cdef void _enter(self, long long database) except *
    @cython.locals(end=Py_ssize_t, pos=Py_ssize_t, at=Py_ssize_t, number=cython.longlong, first=int, step=cython.longlong, word=bytes)
    cdef Py_ssize_t _run(self, bytes data, const unsigned char[::1] view) except -1
    @cython.locals(kind=int)
    cdef void _begin(self, bytes name) except *
    cdef void _whole(self, long long offset) except *
