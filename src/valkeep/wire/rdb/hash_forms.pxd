cimport cython

from .scan cimport Scanner

cdef Py_ssize_t _SCRATCH, _HEAD, _EMPTY
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
    cdef int _text(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(digits=bytes)
    cdef int _number(self, long long number) except -1

@cython.final
cdef class Packed:
    cdef long long fields
    cdef long long with_ttl
    cdef long long dropped
    cdef Py_ssize_t _kept_bytes
    cdef Py_ssize_t _first
    cdef Py_ssize_t _last
    cdef Py_ssize_t _start
    cdef Py_ssize_t _stop
    cdef bint _is_number
    cdef long long _number
    @cython.locals(size=Py_ssize_t, count=cython.longlong, last=Py_ssize_t, fields=cython.longlong, with_ttl=cython.longlong, kept=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t)
    cdef int open(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end, bint drop) except -1
    @cython.locals(left=Py_ssize_t, first=int, head=Py_ssize_t, length=Py_ssize_t, width=int, size=Py_ssize_t)
    cdef Py_ssize_t _next(self, const unsigned char[::1] data, Py_ssize_t pos) except -1
    @cython.locals(number=cython.longlong)
    cdef Py_ssize_t _signed(self, const unsigned char[::1] data, Py_ssize_t pos, int width) except? -1
    @cython.locals(value=cython.longlong)
    cdef Py_ssize_t _backward(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t size) except -1
    @cython.locals(pos=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t, is_number=bint, number=cython.longlong, value_start=Py_ssize_t, value_stop=Py_ssize_t, value_is_number=bint, value=cython.longlong)
    cdef int write_plain(self, const unsigned char[::1] data, Writer out, bint with_expiry) except -1
    @cython.locals(pos=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t, kept=cython.longlong, size=Py_ssize_t)
    cdef int write_packed(self, const unsigned char[::1] data, Writer out) except -1
