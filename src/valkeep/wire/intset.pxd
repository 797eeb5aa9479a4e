cimport cython
from .listpack cimport decimal, signed64

cdef class Reader:
    cdef const unsigned char[::1] view
    cdef readonly Py_ssize_t width
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t index
    cdef readonly long long last
    cpdef void open(self, bytes blob) except *
    @cython.locals(number=cython.ulonglong)
    cdef unsigned long long bits(self, Py_ssize_t pos, Py_ssize_t width) except? 0
    @cython.locals(pos=Py_ssize_t, bit=int, number=cython.longlong)
    cpdef bytes next(self)
