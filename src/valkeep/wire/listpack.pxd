cimport cython

# 64 bit results that may be -1 are Py_ssize_t: Cython 3.3 writes the suffix of a `long long` exception value twice ("-1LLLL") when one run
# compiles several modules that cimport it.

cdef tuple _BYTE
cdef tuple _SMALL
cdef int _AT_END, _AT_STRING, _AT_INTEGER
cdef Py_ssize_t _HEADER, _COUNT_UNKNOWN

cpdef bytes decimal(long long number)

@cython.locals(low=cython.longlong)
cpdef long long signed64(unsigned long long number)

@cython.final
cdef class Reader:
    cdef readonly bytes blob
    cdef const unsigned char[::1] view
    cdef readonly Py_ssize_t size
    cdef readonly Py_ssize_t pos
    cdef readonly Py_ssize_t start
    cdef readonly Py_ssize_t stop
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t index
    cdef readonly long long number
    cdef readonly int state
    @cython.locals(size=Py_ssize_t)
    cpdef void open(self, bytes blob) except *
    @cython.locals(pos=Py_ssize_t, last=Py_ssize_t, left=Py_ssize_t, head=Py_ssize_t, length=cython.longlong, first=int, width=int, number=cython.longlong, bit=int)
    cpdef int advance(self) except -1
    @cython.locals(pos=Py_ssize_t, last=Py_ssize_t, width=int, i=int, value=cython.longlong, ok=bint)
    cdef void backward(self, long long length) except *
    @cython.locals(number=cython.longlong)
    cdef Py_ssize_t little(self, Py_ssize_t pos, int width) except? -1
    @cython.locals(number=cython.ulonglong, i=int)
    cdef unsigned long long bits64(self, Py_ssize_t pos) except? 0
    cpdef bytes value(self)
    cpdef bytes next(self)
    cpdef Py_ssize_t integer(self) except? -1

@cython.final
cdef class Builder:
    cdef list parts
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t size
    @cython.locals(length=Py_ssize_t, head=int, parts=list)
    cpdef void append(self, bytes value) except *
    @cython.locals(first=int, negative=bint, i=Py_ssize_t, magnitude=cython.ulonglong, number=cython.longlong)
    cdef bint append_digits(self, bytes value, Py_ssize_t length) except -1
    @cython.locals(parts=list, width=int)
    cpdef void append_integer(self, long long number) except *
    cdef void append_little(self, long long number, int width) except *
    @cython.locals(width=int, shift=int)
    cdef void append_backward(self, Py_ssize_t length) except *
    cpdef bytes finish(self)
    cpdef void clear(self) except *
