cimport cython

from ..lzf cimport decompress
from .hash_forms cimport Packed, Writer, absolute, relative
from .scan cimport Scanner

cdef int _MODE_HASH_2, _MODE_KEEP, _MODE_DROP, _MODE_EX
cdef int _LEAST, _COUNT, _TTL, _FIELD, _VALUE, _EXPIRY, _BLOB, _BODY, _END
cdef Py_ssize_t _LARGEST_BLOB
cdef unsigned long long _NONE

@cython.final
cdef class HashConverter(Writer):
    cdef int _form
    cdef int _mode
    cdef readonly int out_type
    cdef readonly bint count_known
    cdef readonly long long fields
    cdef readonly long long fields_with_ttl
    cdef readonly long long fields_dropped
    cdef readonly bint done
    cdef Scanner _read
    cdef int _state
    cdef bint _holds
    cdef bytearray _held
    cdef unsigned long long _least
    cdef unsigned long long _left
    cdef unsigned long long _expiry
    cdef Py_ssize_t _skip
    cdef bint _keep
    cdef Py_ssize_t _plain_size
    @cython.locals(after=Py_ssize_t)
    cpdef Py_ssize_t feed(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end, bytearray out) except -1
    @cython.locals(read=Scanner, size=Py_ssize_t, after=Py_ssize_t, state=int)
    cdef Py_ssize_t _step(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -1
    cdef int _next_field(self) except -1
    cdef unsigned long long _absolute(self, Scanner read, Py_ssize_t pos) except? 9
    @cython.locals(held=bytes)
    cdef int _after_hash_2(self, unsigned long long expiry) except -1
    @cython.locals(packed=Packed, blob=bytes)
    cdef int _whole_blob(self) except -1
