//! The engineer's and the operator's command line.
fn main() {}
