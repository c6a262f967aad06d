//! The operator's screen, without a network and without a terminal of its own.
#![forbid(unsafe_code)]
