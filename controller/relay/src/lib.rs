//! The blind relay: forwards WireGuard datagrams of open sessions, unchanged.
#![forbid(unsafe_code)]
