//! What is wrong with the way to the controller and its relay, found and said in a technician's words.
//!
//! Gathering and judging are apart: [`look`] asks the machine and the network, bounded in time, and returns
//! [`NetworkFacts`]; [`network_findings`] makes [`Finding`]s of them and asks nobody. `thinlane-agent check` and
//! `thinlane doctor` add what only a gateway or only a laptop has.
#![forbid(unsafe_code)]

mod contact;
mod facts;
mod finding;
mod interfaces;
mod judge;
mod look;
mod names;
mod relay;
mod whole;

pub use contact::{Admission, admission};
pub use facts::{Cidr, Contact, Name, NetworkFacts, RelayFact, Validity, Way};
pub use finding::{Finding, Severity, render};
pub use interfaces::{Interface, interfaces};
pub use judge::{Place, network_findings};
pub use look::{Look, look};
pub use names::{addresses, plain};
pub use relay::try_relay;
