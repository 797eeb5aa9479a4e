cimport cython
from ..listpack cimport Reader
from .handler cimport Handler

cdef int AT_END, AT_INTEGER, _DELETED, _SAME_FIELDS

cdef class Nodes:
    cdef Reader reader
    cdef readonly bint has_first
    cdef readonly unsigned long long first_ms
    cdef readonly unsigned long long first_seq
    cpdef void begin(self) except *
    @cython.locals(reader=Reader, valid=cython.longlong, deleted=cython.longlong, flags=cython.longlong, ms_diff=cython.longlong, seq_diff=cython.longlong, names=cython.longlong, pieces=cython.longlong, shared=list, fields=list)
    cpdef void tell(self, Handler handler, bytes master, bytes blob) except *
    @cython.locals(names=cython.longlong)
    cdef list names(self, Reader reader)
    @cython.locals(value=bytes)
    cdef bytes text(self, Reader reader)
