cimport cython

from .slots cimport SlotHash

cdef long long _ARGUMENTS
cdef long long _BULK
cdef int _NAME
cdef int _DIGITS
cdef int _KEY
cdef int _PASSES
cdef int _LEFT_OUT
cdef int _NOT_ALL, _TOO_LONG, _NO_ARGUMENT
cdef int _MASK
cdef int _NEED_MORE
cdef int _ATTENTION

cdef class CommandScanner:
    cdef readonly int stop
    cdef readonly bytes name
    cdef readonly long long argc
    cdef readonly Py_ssize_t boundary
    cdef readonly bint in_multi
    cdef readonly long long commands
    cdef long long _arguments
    cdef long long _body
    cdef list _starts
    cdef list _stops
    cdef int[::1] _table
    cdef int[::1] _offsets
    cdef int[::1] _sizes
    cdef long long[::1] _plain
    cdef const unsigned char[::1] _letters
    cdef int _multi
    cdef int _exec
    cdef const unsigned char[::1] _keyed
    cdef const unsigned char[::1] _owned
    cdef SlotHash _slots
    cdef Py_ssize_t _first_at
    cdef Py_ssize_t _first_size

    cpdef Py_ssize_t scan(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -1
    cpdef Py_ssize_t finish(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -1
    cpdef Py_ssize_t skip(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -1

    cdef _forget(self)

    @cython.locals(first=Py_ssize_t, arguments=cython.longlong, body=cython.longlong, commands=cython.longlong, boundary=Py_ssize_t,
                   start=Py_ssize_t, at=Py_ssize_t, argc=cython.longlong, in_name=cython.bint, mark=int, number=cython.longlong,
                   line=Py_ssize_t, digit=int, size=Py_ssize_t, code=int, i=Py_ssize_t, letter=int, slot=int, found=int, entry=int,
                   offset=int)
    cdef Py_ssize_t _run(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end, bint only_this, int passes) except -1

    @cython.locals(number=cython.longlong, line=Py_ssize_t, digit=int)
    cdef int _first(self, const unsigned char[::1] data, Py_ssize_t at, Py_ssize_t end) except -9

    @cython.locals(starts=list, stops=list, at=Py_ssize_t, left=cython.longlong, line=Py_ssize_t, number=cython.longlong, digit=int)
    cdef Py_ssize_t _whole(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -2
