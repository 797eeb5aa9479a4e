cimport cython

cdef unsigned int _MASK

cdef class SlotHash:
    cdef const unsigned short[::1] _table

    @cython.locals(start=Py_ssize_t, end=Py_ssize_t, stop=Py_ssize_t, i=Py_ssize_t, crc="unsigned int")
    cpdef int of(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t size) except -9
