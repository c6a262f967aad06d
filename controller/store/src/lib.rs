//! State and log in one SQLite file; the only crate that knows SQL.
#![forbid(unsafe_code)]
