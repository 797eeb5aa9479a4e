cimport cython
from ..listpack cimport signed64
from .chunks cimport Chunks
from .handler cimport Handler
from .packed cimport Packed, score_of
from .streams cimport Nodes

# what the module imports or sets is a C integer, so that the state machine is one of comparisons and not of look-ups
cdef int DIALECT_REDIS, DIALECT_VALKEY, FIRST_VERSION_WITH_FOOTER, FOOTER_SIZE, HEADER_SIZE, KIND_STRING, MODULE_DOUBLE
cdef int MODULE_EOF, MODULE_FLOAT, MODULE_STRING, MODULE_UINT, NODE_PACKED, NODE_PLAIN, OP_AUX, OP_EOF, OP_EXPIRETIME
cdef int OP_EXPIRETIME_MS, OP_FREQ, OP_FUNCTION2, OP_IDLE, OP_KEY_META, OP_MODULE_AUX, OP_RESIZEDB, OP_SELECTDB, OP_SLOT_IMPORT
cdef int OP_SLOT_INFO, SHAPE_HASH, SHAPE_HASH_2, SHAPE_HASH_LISTPACK, SHAPE_HASH_TRIPLES, SHAPE_HASH_TRIPLES_BARE
cdef int SHAPE_HASH_TTL_ABSOLUTE, SHAPE_HASH_TTL_RELATIVE, SHAPE_HASH_ZIPLIST, SHAPE_HASH_ZIPMAP, SHAPE_LIST, SHAPE_MODULE
cdef int SHAPE_QUICKLIST, SHAPE_QUICKLIST_2, SHAPE_SET, SHAPE_SET_LISTPACK, SHAPE_STREAM, SHAPE_STRING, SHAPE_ZSET_BINARY
cdef int SHAPE_ZSET_LISTPACK, SHAPE_ZSET_TEXT, TYPE_STREAM_LISTPACKS, TYPE_STREAM_LISTPACKS_3
cdef int HEADER, NEXT, COUNT, ELEMENT, BLOB, STREAM_META, GROUP, PENDING, CONSUMERS, CONSUMER, OWNED, MODULE_ID, PART, META_CLASS
cdef int FOOTER, DONE, OF_RECORD, OF_AUX, OF_KEY_META
cdef long long _FARTHEST_EXPIRY

cdef class Decoder(Chunks):
    cdef readonly Handler handler
    cdef readonly int dialect
    cdef readonly int version
    cdef const unsigned char[::1] shape_of
    cdef const unsigned char[::1] kind_of
    cdef bint single
    cdef int state
    cdef readonly unsigned long long database
    cdef readonly int type_id
    cdef int shape
    cdef readonly bytes key
    cdef readonly long long expire_ms
    cdef int freq
    cdef long long idle
    cdef unsigned long long left
    cdef long long first_expiry
    cdef int owner
    cdef unsigned int meta_class
    cdef unsigned long long meta_left
    cdef list parts
    cdef int stream_version
    cdef unsigned long long stream_added
    cdef unsigned long long stream_last_ms
    cdef unsigned long long stream_last_seq
    cdef unsigned long long stream_first_ms
    cdef unsigned long long stream_first_seq
    cdef unsigned long long groups_left
    cdef unsigned long long consumers_left
    cdef Packed packed
    cdef Nodes nodes

    @cython.locals(state=int)
    cdef bint unit(self) except -1
    cdef bint header(self) except -1
    cdef void begin(self, int dialect, int version) except *
    @cython.locals(pos=Py_ssize_t, number=int, shape=int, key=bytes, value=bytes)
    cdef bint next_item(self) except -1
    cdef int first_state(self, int shape) except -1
    cdef void end_key(self) except *
    @cython.locals(seconds=cython.longlong, keys=cython.ulonglong, slot=cython.ulonglong, name=bytes, value=bytes, code=bytes)
    cdef bint opcode(self, int number) except -1
    @cython.locals(job=bytes, count=cython.ulonglong, first=cython.ulonglong)
    cdef bint slot_import(self) except -1
    @cython.locals(stored=cython.ulonglong)
    cdef bint footer(self) except -1
    @cython.locals(module_id=cython.ulonglong)
    cdef bint module_aux(self) except -1
    cdef bint meta(self) except -1
    @cython.locals(opcode=cython.ulonglong, kind=int, data=bytes)
    cdef bint part(self) except -1
    cdef bytes operand(self, int kind)
    cdef bint count(self) except -1
    cdef void expiry_base(self, unsigned long long first) except *
    cdef void elements_end(self) except *
    @cython.locals(shape=int, first=bytes, value=bytes, digits=bytes, blob=bytes, size=int)
    cdef bint element(self) except -1
    cdef Py_ssize_t field_expiry(self, long long expire_ms) except? -2
    @cython.locals(expire_ms=cython.longlong, name=bytes, value=bytes)
    cdef bint field_with_ttl(self, int shape) except -1
    @cython.locals(container=cython.ulonglong, blob=bytes)
    cdef bint quicklist_node(self) except -1
    @cython.locals(blob=bytes)
    cdef bint blob(self) except -1
    cdef bint stream_unit(self, int state) except -1
    @cython.locals(length=cython.ulonglong, last_ms=cython.ulonglong, last_seq=cython.ulonglong, first_ms=cython.ulonglong, first_seq=cython.ulonglong, deleted_ms=cython.ulonglong, deleted_seq=cython.ulonglong, added=cython.ulonglong)
    cdef bint stream_meta(self) except -1
    @cython.locals(name=bytes, ms=cython.ulonglong, seq=cython.ulonglong, read=cython.longlong)
    cdef bint group(self) except -1
    cdef Py_ssize_t entries_read(self, unsigned long long ms, unsigned long long seq) except? -2
    @cython.locals(ms=cython.ulonglong, seq=cython.ulonglong, delivered=cython.longlong)
    cdef bint pending(self) except -1
    @cython.locals(name=bytes, seen=cython.longlong, active=cython.longlong)
    cdef bint consumer(self) except -1
    @cython.locals(ms=cython.ulonglong, seq=cython.ulonglong)
    cdef bint owned(self) except -1
    cpdef void decode_value(self, bytes body, bytes key, int dialect, int version) except *
