cimport cython

from ..slots cimport SlotHash
from .scan cimport Scanner

cdef int _FIRST_OPCODE, _IDLE, _FREQ, _EXPIRETIME, _EXPIRETIME_MS
cdef Py_ssize_t _OVERHEAD, _SMALL, _SLOTS

cdef class Restorer:
    cdef readonly int stop
    cdef readonly int type
    cdef readonly long long commands
    cdef readonly long long keys
    cdef Scanner _scanner
    cdef int _version
    cdef Py_ssize_t _room
    cdef Py_ssize_t _large
    cdef bytearray _out
    cdef unsigned char[::1] _view
    cdef Py_ssize_t _size
    cdef Py_ssize_t _used
    cdef const unsigned long long[::1] _crcs
    cdef bytes _owned
    cdef bint _sharded
    cdef SlotHash _slots

    cpdef bytes take(self)
    @cython.locals(scanner=Scanner, kind=int, value=Py_ssize_t, after=Py_ssize_t, need=Py_ssize_t)
    cpdef Py_ssize_t run(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -9
    @cython.locals(scanner=Scanner)
    cdef int _slot(self, const unsigned char[::1] data, Py_ssize_t value) except -9
    @cython.locals(scanner=Scanner, words=int, expire=cython.longlong, size=Py_ssize_t, start=Py_ssize_t)
    cdef int _command(self, const unsigned char[::1] data, Py_ssize_t value, Py_ssize_t after) except -9
    @cython.locals(scanner=Scanner, pos=Py_ssize_t, size=Py_ssize_t, first=int)
    cdef int _key(self, const unsigned char[::1] data, Py_ssize_t value) except -9
    @cython.locals(view="unsigned char[::1]", end=Py_ssize_t, crc=cython.ulonglong, i=Py_ssize_t)
    cdef int _seal(self, Py_ssize_t start) except -9
    @cython.locals(size=Py_ssize_t, at=Py_ssize_t, i=Py_ssize_t)
    cdef int _put(self, bytes text) except -9
    @cython.locals(at=Py_ssize_t, i=Py_ssize_t)
    cdef int _copy(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t size) except -9
    @cython.locals(width=int)
    cdef int _width(self, unsigned long long number) except -9
    @cython.locals(at=Py_ssize_t, first=Py_ssize_t)
    cdef int _digits(self, unsigned long long number) except -9
    cdef int _allocate(self, Py_ssize_t size) except -9
