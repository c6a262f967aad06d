//! The gateway's machine: desired grants in, effects on kernel and devices out.
#![forbid(unsafe_code)]
