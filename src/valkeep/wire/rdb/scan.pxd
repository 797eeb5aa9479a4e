cimport cython

cdef int _OP_EOF, _OP_SELECTDB, _OP_EXPIRETIME, _OP_EXPIRETIME_MS, _OP_FREQ, _OP_IDLE, _OP_KEY_META, _FIRST_OPCODE
cdef int _S, _L, _8, _G, _D, _M, _OPEN, _CLOSE, _DONE
cdef unsigned long long _MAX_STRING, _MAX_COUNT
cdef Py_ssize_t _MAX_META, _MAX_KEY

@cython.final
cdef class Scanner:
    cdef const unsigned char[::1] attention
    cdef const unsigned char[::1] program
    cdef const unsigned char[::1] jumps
    cdef const unsigned char[::1] entries
    cdef bint is_redis
    cdef public int stop
    cdef public int type
    cdef public long long keys
    cdef public long long expires
    cdef public long long database
    cdef public long long offset
    cdef public str where
    cdef Py_ssize_t _base
    cdef bint _taking
    cdef int _ip
    cdef int _depth
    cdef Py_ssize_t _skip
    cdef unsigned long long _number
    cdef bint _is_record
    cdef long long _expire
    cdef int _freq
    cdef long long _idle
    cdef Py_ssize_t _meta
    cdef Py_ssize_t _meta_end
    cdef Py_ssize_t _type_pos
    cdef Py_ssize_t _key_pos
    cdef unsigned long long _count0
    cdef unsigned long long _count1
    cdef unsigned long long _count2

    @cython.locals(after=Py_ssize_t)
    cpdef Py_ssize_t scan(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -9
    @cython.locals(start=Py_ssize_t, after=Py_ssize_t, kind=int, entry=int, expiring=int)
    cdef Py_ssize_t _run(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -9
    cdef bint _busy(self)
    cdef bint _stopped(self)
    cdef int _passed(self) except -9
    cdef Py_ssize_t _opcode(self, const unsigned char[::1] data, Py_ssize_t start, Py_ssize_t end, int kind) except -9
    cdef Py_ssize_t _prefix(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end, int kind) except -9
    @cython.locals(classes=cython.ulonglong, start=Py_ssize_t)
    cdef Py_ssize_t _key_meta(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -9
    @cython.locals(ip=int, op=int, skip=Py_ssize_t, after=Py_ssize_t)
    cdef Py_ssize_t _value(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -9
    cdef int _enter(self) except -9
    cdef bint _again(self) except -9
    @cython.locals(tag=cython.ulonglong, start=Py_ssize_t)
    cdef Py_ssize_t _tagged(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -9
    @cython.locals(first=int, after=Py_ssize_t, packed=cython.ulonglong)
    cdef Py_ssize_t _string(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -9
    @cython.locals(first=int, size=int, i=int, number=cython.ulonglong)
    cdef Py_ssize_t _length(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -9
    @cython.locals(number=cython.ulonglong, i=int)
    cdef Py_ssize_t _little(self, const unsigned char[::1] data, Py_ssize_t pos, int size) except? -9
    @cython.locals(number=cython.ulonglong, i=int)
    cdef unsigned long long _bits64(self, const unsigned char[::1] data, Py_ssize_t pos) except? 9
    cdef unsigned long long _count(self, Py_ssize_t pos) except? 9
    @cython.locals(value_pos=Py_ssize_t)
    cpdef object prefix(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end)
    @cython.locals(after=Py_ssize_t, kind=int, size=Py_ssize_t)
    cpdef Py_ssize_t head(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end) except -9
    @cython.locals(after=Py_ssize_t, entry=int, busy=cython.bint)
    cpdef Py_ssize_t whole(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end, int kind) except -9
    @cython.locals(after=Py_ssize_t, until=Py_ssize_t, first=int)
    cdef tuple _read_string(self, const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end)

@cython.locals(reader=Scanner)
cpdef object parse_record_prefix(const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end, int dialect=*)
@cython.locals(reader=Scanner)
cpdef tuple read_length(const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end)
@cython.locals(reader=Scanner)
cpdef tuple read_string(const unsigned char[::1] data, Py_ssize_t pos, Py_ssize_t end)
