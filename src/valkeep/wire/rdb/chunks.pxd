cimport cython
from ..listpack cimport decimal, signed64

cdef int ENC_LZF

cdef class Chunks:
    cdef readonly bytes raw
    cdef const unsigned char[::1] view
    cdef readonly Py_ssize_t size
    cdef readonly unsigned long long base
    cdef Py_ssize_t pos
    cdef readonly Py_ssize_t mark
    cdef Py_ssize_t summed
    cdef readonly unsigned long long crc
    cdef bint keep_crc
    cdef bytearray held
    cdef Py_ssize_t need
    cdef Py_ssize_t missing
    cdef unsigned long long number
    cdef int encoding
    cdef readonly bint finished
    cdef readonly bint failed
    cdef readonly bytes unused
    cdef readonly unsigned long long max_blob
    cdef object error

    @cython.locals(finished=bint)
    cpdef void feed(self, data) except *
    cdef bint run(self) except -1
    cdef bint unit(self) except -1
    cdef void sum(self, Py_ssize_t stop) except *
    cdef bint length(self) except -1
    @cython.locals(pos=Py_ssize_t, first=int, width=int, i=int, number=cython.ulonglong)
    cdef bint length_or_encoding(self) except -1
    cdef bint room(self, Py_ssize_t width) except -1
    @cython.locals(pos=Py_ssize_t, number=cython.ulonglong)
    cdef unsigned long long bits(self, int width) except? 0
    @cython.locals(pos=Py_ssize_t, i=int, number=cython.ulonglong)
    cdef unsigned long long bits_big(self) except? 0
    @cython.locals(size=Py_ssize_t, start=Py_ssize_t)
    cdef bytes plain(self, unsigned long long number)
    @cython.locals(width=int, bit=int, number=cython.longlong, packed=cython.ulonglong, size=Py_ssize_t, data=bytes)
    cdef bytes text(self)
