//! The controller's machine: request, decision, approval, arming, session, end.
#![forbid(unsafe_code)]
