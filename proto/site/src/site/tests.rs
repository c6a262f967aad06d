mod bench;
mod closing;
mod opening;
mod refusing;
mod resuming;
