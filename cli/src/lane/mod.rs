//! One lane on this machine, from the request to the last packet.
//!
//! ```text
//! plan --(request, wait)--> approved --preflight--> activate --bring_up--> up --hold--> down
//!                                                      |           |                     ^
//!                                                      +-- any error, signal or panic ---+
//! ```
//!
//! * [`plan`] finds or makes the request, and waits for the decision.
//! * [`preflight`] refuses what cannot work before a request is used up.
//! * [`run`] activates, brings the interface up, holds it and takes it down, whatever happens.
//! * [`places`] finds the addresses of the gateway's ways, [`ways`] changes between them.
//! * [`state`] remembers lanes in files, so that [`leftovers`] of a killed process are found.
//! * [`conf`] writes a stock WireGuard configuration instead, [`forward`] ends the lane in this process.

pub mod activate;
pub mod child;
pub mod conf;
pub mod forward;
pub mod hold;
pub mod leftovers;
pub mod places;
pub mod plan;
pub mod preflight;
pub mod report;
pub mod run;
pub mod signals;
pub mod state;
pub mod watch;
pub mod ways;

pub use report::{LaneEvent, Reporter};
pub use signals::{Signal, Signals};
