//! The transparency log: canonical JSON, RFC 6962 tree, signed checkpoints, proofs.
#![forbid(unsafe_code)]
