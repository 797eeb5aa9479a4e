cimport cython

cdef int _ABSENT, _EQUAL, _DIFFERENT, _WRITTEN, _EXPIRED, _AMBIGUOUS, _DUPLICATE

@cython.locals(mask=cython.ulonglong, other_mask=cython.ulonglong, rows_left=Py_ssize_t, rows_right=Py_ssize_t, many=Py_ssize_t,
               row=Py_ssize_t, at=Py_ssize_t, there=Py_ssize_t, slot=cython.ulonglong, found=Py_ssize_t, state=int)
cdef void _match(const unsigned long long[::1] left, const unsigned long long[::1] right, const unsigned long long[::1] written,
                 unsigned int[::1] table, unsigned int[::1] others, unsigned char[::1] states_left, unsigned char[::1] states_right,
                 unsigned long long deadline) except *

@cython.locals(slot=cython.ulonglong, at=Py_ssize_t)
cdef bint _among(const unsigned long long[::1] written, unsigned int[::1] others, unsigned long long mask, unsigned long long first,
                 unsigned long long second) except -1

cdef bint _past(unsigned long long expiry, unsigned long long deadline) except -1
cdef int _alone(unsigned long long expiry, unsigned long long field_expiry, unsigned long long deadline) except -1

@cython.locals(hits=list, rows=Py_ssize_t, count=Py_ssize_t, database=cython.longlong, size=Py_ssize_t)
cdef tuple _pick(bytes names, const unsigned char[::1] view, const unsigned char[::1] states, bytes wanted, Py_ssize_t row, Py_ssize_t pos,
                 Py_ssize_t limit)
