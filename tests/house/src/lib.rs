//! The rules of the house as tests; see `tests/`.
#![forbid(unsafe_code)]
