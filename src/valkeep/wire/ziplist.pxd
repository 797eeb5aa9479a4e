cimport cython
from .listpack cimport decimal, signed64

cdef class Reader:
    cdef readonly bytes blob
    cdef const unsigned char[::1] view
    cdef readonly Py_ssize_t size
    cdef readonly Py_ssize_t pos
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t index
    cdef readonly Py_ssize_t previous
    @cython.locals(size=Py_ssize_t)
    cpdef void open(self, bytes blob) except *
    @cython.locals(number=cython.longlong)
    cdef Py_ssize_t little(self, Py_ssize_t pos, int width) except? -1
    @cython.locals(number=cython.ulonglong, i=int)
    cdef unsigned long long bits64(self, Py_ssize_t pos) except? 0
    @cython.locals(pos=Py_ssize_t, last=Py_ssize_t, left=Py_ssize_t, start=Py_ssize_t, previous=cython.longlong, length=cython.longlong, first=int, width=int, i=int, bit=int, number=cython.longlong)
    cpdef bytes next(self)
