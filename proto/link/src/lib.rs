//! The channel machine: log-in, resume, keepalive, back-off, both ends.
#![forbid(unsafe_code)]
