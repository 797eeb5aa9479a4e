cimport cython

@cython.locals(end=Py_ssize_t, i=Py_ssize_t, o=Py_ssize_t, back=Py_ssize_t, length=int, control=int, source="const unsigned char[::1]", target="unsigned char[::1]")
cpdef bytes decompress(bytes data, Py_ssize_t size)
