//! What is expected of `site`, as tests.

mod bench;
mod closing;
mod opening;
mod refusing;
mod resuming;
