cimport cython

cdef class Parser:
    cdef public Py_ssize_t max_bulk
    cdef bytes _buffer
    cdef Py_ssize_t _pos
    cdef list _chunks
    cdef Py_ssize_t _waiting
    cdef Py_ssize_t _want
    cdef list _kinds
    cdef list _left
    cdef list _items
    cdef bint _began
    cdef object _error

    @cython.locals(top=Py_ssize_t, left=Py_ssize_t, kind=int, items=list)
    cpdef next(self)

    cdef _join(self)

    @cython.locals(buffer=bytes, line=bytes, body=bytes, pos=Py_ssize_t, eol=Py_ssize_t, after=Py_ssize_t, held=Py_ssize_t, size=Py_ssize_t, whole=Py_ssize_t, kind=int)
    cdef _step(self)

    cdef _advance(self, Py_ssize_t pos)

    @cython.locals(line=bytes, size=object)
    cdef Py_ssize_t _length(self, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t limit) except -2

    @cython.locals(start=bytes)
    cdef _fail_kind(self)

    @cython.locals(start=bytes)
    cdef _fail(self, what)

    cdef _fail_with(self, message, remedy)

cdef _finish(int kind, list items)
cdef _hashable(value)
