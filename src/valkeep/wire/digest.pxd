cimport cython

from .rdb.handler cimport Handler

cdef int _KEEP, _DROP, _HASH, _STREAM, _MODULE
cdef unsigned long long _M, _C0, _C1, _C2, _C3
cdef Py_ssize_t _SCRATCH

@cython.final
cdef class Sip:
    cdef unsigned long long _k0
    cdef unsigned long long _k1
    cdef unsigned long long _v0
    cdef unsigned long long _v1
    cdef unsigned long long _v2
    cdef unsigned long long _v3
    cdef unsigned long long _words
    cdef unsigned long long _h0
    cdef unsigned long long _h1
    cdef void _start(self) noexcept
    cdef void _word(self, unsigned long long m) noexcept
    @cython.locals(v0=cython.ulonglong, v1=cython.ulonglong, v2=cython.ulonglong, v3=cython.ulonglong)
    cdef void _rounds(self, int n) noexcept
    @cython.locals(size=Py_ssize_t, i=Py_ssize_t, left=Py_ssize_t, m=cython.ulonglong, p="const unsigned char*", v0=cython.ulonglong, v1=cython.ulonglong, v2=cython.ulonglong, v3=cython.ulonglong)
    cdef int _string(self, bytes data) except -1
    cdef void _finish(self) noexcept

@cython.locals(sip=Sip)
cpdef bytes siphash13(bytes key, list words)

cdef class Digester(Handler):
    cdef Sip _sip
    cdef int _field_ttl
    cdef readonly unsigned long long database
    cdef readonly long long keys
    cdef readonly long long absent
    cdef readonly long long functions
    cdef unsigned long long _functions0
    cdef unsigned long long _functions1
    cdef bytearray _scratch
    cdef unsigned char[::1] _view
    cdef Py_ssize_t _fill
    cdef bytearray _rows
    cdef int _kind
    cdef unsigned long long _expire
    cdef unsigned long long _count
    cdef unsigned long long _key0
    cdef unsigned long long _key1
    cdef unsigned long long _a0
    cdef unsigned long long _a1
    cdef bytes _consumer
    cpdef bytes drain(self)
    cpdef bytes key_digest(self, unsigned long long database, bytes key)
    cpdef void select(self, unsigned long long database) except *
    @cython.locals(sip=Sip)
    cpdef void function(self, bytes code) except *
    cpdef void begin_key(self, bytes key, long long expire_ms, int kind, int freq, long long idle) except *
    @cython.locals(sip=Sip)
    cpdef void string(self, bytes value) except *
    cpdef void item(self, bytes value) except *
    cpdef void member(self, bytes value) except *
    @cython.locals(bits=bytes)
    cpdef void scored(self, bytes member, double score) except *
    cpdef void field(self, bytes name, bytes value, long long expire_ms) except *
    @cython.locals(value=bytes)
    cpdef void stream_entry(self, unsigned long long ms, unsigned long long seq, list fields) except *
    cpdef void stream_meta(self, unsigned long long length, unsigned long long last_ms, unsigned long long last_seq, unsigned long long first_ms, unsigned long long first_seq, unsigned long long max_deleted_ms, unsigned long long max_deleted_seq, unsigned long long entries_added) except *
    cpdef void group(self, bytes name, unsigned long long last_ms, unsigned long long last_seq, long long entries_read) except *
    cpdef void pending(self, unsigned long long ms, unsigned long long seq, long long delivery_ms, unsigned long long delivery_count) except *
    cpdef void consumer(self, bytes name, long long seen_ms, long long active_ms) except *
    cpdef void owned(self, unsigned long long ms, unsigned long long seq) except *
    cpdef void module(self, unsigned long long module_id) except *
    cpdef void module_part(self, int opcode, bytes data) except *
    @cython.locals(sip=Sip)
    cpdef void end_key(self) except *
    @cython.locals(sip=Sip)
    cdef int _hash_key(self, unsigned long long database, bytes key) except -1
    cdef int _link(self) except -1
    cdef int _chain(self) except -1
    cdef int _add(self) except -1
    @cython.locals(i=int)
    cdef int _put(self, unsigned long long value) except -1
