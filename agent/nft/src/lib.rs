//! A set of lanes as nf_tables batches over netlink, and the kernel's answers read back.
