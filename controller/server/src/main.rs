//! The controller: HTTPS API, agent channel, relay, log.
fn main() {}
