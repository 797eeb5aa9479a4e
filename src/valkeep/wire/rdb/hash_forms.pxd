cimport cython

from ..listpack cimport Reader
from .scan cimport Scanner

cdef Py_ssize_t _SCRATCH
cdef unsigned long long _LARGEST_EXPIRY, _NONE

@cython.locals(ttl=cython.ulonglong)
cpdef unsigned long long absolute(Scanner read, Py_ssize_t pos, bint is_relative, unsigned long long least) except? 9
cpdef unsigned long long relative(unsigned long long expiry) except? 9

cdef class Writer:
    cdef bytearray _scratch
    cdef unsigned char[::1] _view
    cdef Py_ssize_t _fill
    cdef bytearray _out
    cdef int _flush(self) except -1
    @cython.locals(size=Py_ssize_t, fill=Py_ssize_t)
    cdef int _copy(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -1
    cdef int _byte(self, int value) except -1
    cdef int _little(self, unsigned long long value, int size) except -1
    cdef int _big(self, unsigned long long value, int size) except -1
    cdef int _length(self, unsigned long long value) except -1
    cdef int _entry(self, Reader pack) except -1
    @cython.locals(digits=bytes)
    cdef int _number(self, long long number) except -1

@cython.final
cdef class Packed:
    cdef Reader _pack
    cdef Reader _ahead
    cdef long long fields
    cdef long long with_ttl
    cdef long long dropped
    cdef Py_ssize_t _kept_bytes
    @cython.locals(pack=Reader, fields=cython.longlong, with_ttl=cython.longlong, kept=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t)
    cdef int open(self, bytes blob, bint drop) except -1
    @cython.locals(pack=Reader, ahead=Reader)
    cdef int write_plain(self, Writer out, bint with_expiry) except -1
    @cython.locals(pack=Reader, kept=cython.longlong, size=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t)
    cdef int write_packed(self, Writer out) except -1
