cdef class Handler:
    cpdef void begin(self, int dialect, int version) except *
    cpdef void aux(self, bytes name, bytes value) except *
    cpdef void select(self, unsigned long long database) except *
    cpdef void resize(self, unsigned long long keys, unsigned long long expires) except *
    cpdef void function(self, bytes code) except *
    cpdef void module_aux(self, unsigned long long module_id, unsigned long long when) except *
    cpdef void slot_info(self, unsigned long long slot, unsigned long long keys, unsigned long long expires) except *
    cpdef void slot_import(self, bytes job, list ranges) except *
    cpdef void key_meta(self, unsigned int class_spec, list parts) except *
    cpdef void begin_key(self, bytes key, long long expire_ms, int kind, int freq, long long idle) except *
    cpdef void string(self, bytes value) except *
    cpdef void item(self, bytes value) except *
    cpdef void member(self, bytes value) except *
    cpdef void scored(self, bytes member, double score) except *
    cpdef void field(self, bytes name, bytes value, long long expire_ms) except *
    cpdef void stream_entry(self, unsigned long long ms, unsigned long long seq, list fields) except *
    cpdef void stream_meta(self, unsigned long long length, unsigned long long last_ms, unsigned long long last_seq, unsigned long long first_ms, unsigned long long first_seq, unsigned long long max_deleted_ms, unsigned long long max_deleted_seq, unsigned long long entries_added) except *
    cpdef void group(self, bytes name, unsigned long long last_ms, unsigned long long last_seq, long long entries_read) except *
    cpdef void pending(self, unsigned long long ms, unsigned long long seq, long long delivery_ms, unsigned long long delivery_count) except *
    cpdef void consumer(self, bytes name, long long seen_ms, long long active_ms) except *
    cpdef void owned(self, unsigned long long ms, unsigned long long seq) except *
    cpdef void module(self, unsigned long long module_id) except *
    cpdef void module_part(self, int opcode, bytes data) except *
    cpdef void end_key(self) except *
    cpdef void end(self, unsigned long long crc) except *
