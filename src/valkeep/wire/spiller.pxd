cimport cython

from .digest cimport Digester
from .slots cimport SlotHash

cdef unsigned long long _M
cdef int _DROP_FIELD

cdef class Spiller(Digester):
    cdef readonly list rows
    cdef readonly list names
    cdef readonly list libraries
    cdef readonly long long stream_database
    cdef readonly long long forced_expiry
    cdef unsigned long long _mask
    cdef bytes _owned
    cdef bint _sharded
    cdef SlotHash _slots
    cdef int _policy
    cdef bytes _name
    cdef long long _expiry
    cdef long long _first
    cdef bytearray _row
    cdef unsigned long long[::1] _words
    cdef bytearray _head
    cdef unsigned char[::1] _bytes
    cpdef void aux(self, bytes name, bytes value) except *
    cpdef void function(self, bytes code) except *
    cpdef void place(self, unsigned long long database, long long expire_ms) except *
    cpdef void begin_key(self, bytes key, long long expire_ms, int kind, int freq, long long idle) except *
    cpdef void string(self, bytes value) except *
    cpdef void item(self, bytes value) except *
    cpdef void member(self, bytes value) except *
    cpdef void scored(self, bytes member, double score) except *
    cpdef void field(self, bytes name, bytes value, long long expire_ms) except *
    @cython.locals(before=cython.longlong)
    cpdef void end_key(self) except *
    @cython.locals(number=cython.ulonglong, size=Py_ssize_t, i=int, part=Py_ssize_t, rows=bytearray, names=bytearray, words="unsigned long long[::1]")
    cdef int _keep(self) except -1
