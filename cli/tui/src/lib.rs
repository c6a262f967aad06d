//! The operator's screen, without a network and without a terminal of its own.
//!
//! ```text
//! controller --Input--> Model --+                      +--> draw (a snapshot) --> buffer
//!                               +--> App --------------+
//! keyboard -----Key--> keys::TABLE --Action--^         +--> Effect --> the shell does it --> Answer --> App
//! ```
//!
//! * [`model`] is what is known: the controller's snapshot and every event since, and how old that is.
//! * [`keys`] is the one table of keys; the help screen and the bottom line are made from it.
//! * [`app`] is what the screen shows and what keys make of it; a selection holds to an id, never to a row.
//! * [`act`] asks before anything is done, and says exactly what will be done.
//! * [`table`] has columns as data; [`draw()`] makes the picture; [`canvas`] sends it in pieces; [`pace`] bounds what it
//!   costs, and waits for each piece to arrive.
//! * [`decode`] makes keys of what comes from the terminal, and knows its answers from them.
//!
//! Time is an argument. The shell that owns the terminal and the connection is `thinlane tui`.
#![forbid(unsafe_code)]

pub mod act;
pub mod app;
pub mod canvas;
mod columns;
pub mod config;
pub mod decode;
mod draw;
pub mod key;
pub mod keys;
mod meter;
pub mod model;
pub mod notice;
pub mod once;
pub mod pace;
pub mod page;
mod paint;
mod pen;
pub mod qr;
mod rights;
pub mod table;
pub mod text;
mod view;

pub use app::{Answer, App, Code, Effect};
pub use columns::facts;
pub use config::Config;
pub use draw::draw;
pub use key::Key;
pub use keys::View;
pub use model::Input;
pub use text::Glyphs;
