//! The views: lists, the page of a session, and what lies over them.

pub mod list;
pub mod over;
pub mod page;
pub mod request;
