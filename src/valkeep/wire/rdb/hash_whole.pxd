cimport cython

from ..lzf cimport decompress
from .hash_forms cimport Packed, Writer, absolute, relative
from .scan cimport Scanner

cdef int _MODE_HASH_2, _MODE_KEEP, _MODE_DROP, _MODE_EX
cdef Py_ssize_t _LARGEST_BLOB, _SMALL_RECORD
cdef unsigned long long _NONE

@cython.final
cdef class RecordConverter(Writer):
    cdef int _dialect
    cdef bint _valkey
    cdef int _mode
    cdef Scanner _read
    cdef Packed _packed
    cdef readonly int stop
    cdef readonly Py_ssize_t key_start
    cdef readonly Py_ssize_t key_end
    cdef readonly long long fields
    cdef readonly long long fields_with_ttl
    cdef readonly long long fields_dropped
    cdef readonly bint empty
    cdef readonly long long records
    cdef public list changes
    cdef unsigned long long _expiry
    cdef Py_ssize_t _pair_start
    cdef Py_ssize_t _pair_end
    @cython.locals(after=Py_ssize_t)
    cpdef Py_ssize_t convert(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end, bytearray out) except -1
    @cython.locals(after=Py_ssize_t)
    cpdef Py_ssize_t translate(self, Scanner scanner, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end, bytearray out) except -1
    @cython.locals(read=Scanner)
    cdef int _changed(self, const unsigned char[::1] data, long long database) except -1
    @cython.locals(read=Scanner, start=Py_ssize_t, after=Py_ssize_t, kind=int, kind_pos=Py_ssize_t, form=int)
    cdef Py_ssize_t _convert(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -1
    cdef int _head(self, const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t kind_pos, int out_type) except -1
    cdef int _counted(self, long long fields, long long with_ttl, long long dropped) except -1
    @cython.locals(read=Scanner, pos=Py_ssize_t, after=Py_ssize_t, size=Py_ssize_t, first=int, blob=bytes)
    cdef Py_ssize_t _convert_packed(self, const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t kind_pos, Py_ssize_t end, int form) except -1
    @cython.locals(packed=Packed)
    cdef int _pack(self, const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t kind_pos, const unsigned char[::1] blob, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.locals(read=Scanner, pos=Py_ssize_t, least=cython.ulonglong, fields=cython.longlong, left=cython.longlong, with_ttl=cython.longlong, dropped=cython.longlong, body=Py_ssize_t, stop=Py_ssize_t)
    cdef Py_ssize_t _convert_plain(self, const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t kind_pos, Py_ssize_t end, int form) except -1
    cdef int _out_type(self) except -1
    @cython.locals(read=Scanner, start=Py_ssize_t, expiry=cython.ulonglong)
    cdef Py_ssize_t _over(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end, int form, unsigned long long least) except -9
