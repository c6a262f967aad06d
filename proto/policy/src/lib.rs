//! TOML to checked rules, and the decision with the rules that determined it.
#![forbid(unsafe_code)]
