//! Frames between gateway and controller, and the types of the HTTPS API.
#![forbid(unsafe_code)]
