//! Windows: console events, job objects, the profile's access lists.

pub mod files;
pub mod mark;
pub mod process;
pub mod signals;
pub mod terminal;
