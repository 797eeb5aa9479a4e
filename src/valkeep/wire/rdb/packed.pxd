cimport cython
from ..intset cimport Reader as IntsetReader
from ..listpack cimport Reader as ListpackReader
from ..ziplist cimport Reader as ZiplistReader
from .handler cimport Handler

cdef int SHAPE_HASH_LISTPACK, SHAPE_HASH_TRIPLES, SHAPE_HASH_TRIPLES_BARE, SHAPE_HASH_ZIPLIST, SHAPE_HASH_ZIPMAP, SHAPE_LIST_ZIPLIST
cdef int SHAPE_SET_INTSET, SHAPE_SET_LISTPACK, SHAPE_ZSET_ZIPLIST

cpdef double score_of(bytes digits) except? -1.5

cdef class Packed:
    cdef IntsetReader intset
    cdef readonly ListpackReader listpack
    cdef ZiplistReader ziplist
    cpdef void tell(self, Handler handler, int shape, bytes blob) except *
    @cython.locals(reader=ZiplistReader, value=bytes)
    cpdef void items_of_ziplist(self, Handler handler, bytes blob) except *
    @cython.locals(reader=ListpackReader, value=bytes)
    cpdef void items_of_listpack(self, Handler handler, bytes blob) except *
    @cython.locals(reader=ListpackReader, value=bytes)
    cdef void members_of_listpack(self, Handler handler, bytes blob) except *
    @cython.locals(reader=IntsetReader, value=bytes)
    cdef void members_of_intset(self, Handler handler, bytes blob) except *
    @cython.locals(reader=ZiplistReader, first=bytes, second=bytes)
    cdef void pairs_of_ziplist(self, Handler handler, bytes blob, bint is_hash) except *
    @cython.locals(reader=ListpackReader, first=bytes, second=bytes)
    cdef void pairs_of_listpack(self, Handler handler, bytes blob, bint is_hash) except *
    @cython.locals(reader=ListpackReader, name=bytes, value=bytes, expire_ms=cython.longlong)
    cdef void triples_of_listpack(self, Handler handler, bytes blob) except *
