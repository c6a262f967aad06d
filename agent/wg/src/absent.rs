//! What stands for devices and links on a system that has no backend: neither can be opened, so no other function here
//! is ever entered, and the compiler knows.

use std::convert::Infallible;
use std::net::SocketAddr;

use thinlane_model::{Boot, SessionId};

use crate::config::UserspaceConfig;
use crate::device::{Backend, Device, DeviceError, LaneReport, LaneSpec};

/// A device that cannot be.
#[derive(Debug)]
pub struct Userspace(Infallible);

impl Userspace {
    /// Refuses.
    pub fn start(_config: UserspaceConfig) -> Result<Self, DeviceError> {
        Err(DeviceError::Link(link::LinkError::Absent))
    }
}

impl Device for Userspace {
    fn open(&mut self, _spec: LaneSpec) -> Result<(), DeviceError> {
        match self.0 {}
    }

    fn extend(&mut self, _session: SessionId, _deadline: Boot) -> Result<(), DeviceError> {
        match self.0 {}
    }

    fn shut(&mut self, _session: SessionId) -> Result<(), DeviceError> {
        match self.0 {}
    }

    fn close(&mut self, _session: SessionId) -> Result<LaneReport, DeviceError> {
        match self.0 {}
    }

    fn report(&mut self, _session: SessionId) -> Option<LaneReport> {
        match self.0 {}
    }

    fn reports(&mut self) -> Vec<LaneReport> {
        match self.0 {}
    }

    fn set_endpoint(&mut self, _session: SessionId, _endpoint: SocketAddr) -> Result<(), DeviceError> {
        match self.0 {}
    }

    fn handshake(&mut self) {
        match self.0 {}
    }

    fn close_all(&mut self) -> Vec<LaneReport> {
        match self.0 {}
    }

    fn suspend_all(&mut self) -> Vec<LaneReport> {
        match self.0 {}
    }

    fn interface(&self, _session: SessionId) -> Option<String> {
        match self.0 {}
    }

    fn backend(&self) -> Backend {
        match self.0 {}
    }
}

/// Interfaces, addresses and routes, of which this system tells nothing.
pub mod link {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;

    pub use crate::shown::{ALIAS, Interface, Reach};

    /// Why an interface, address or route is not as it should be.
    #[derive(Debug, thiserror::Error)]
    pub enum LinkError {
        #[error("thinlane makes no network interface on this system")]
        Absent,
    }

    /// The way to them, which is not there.
    #[derive(Debug)]
    pub struct Link(Infallible);

    impl Link {
        /// Refuses.
        pub fn open() -> Result<Self, LinkError> {
            Err(LinkError::Absent)
        }

        /// Every interface.
        pub fn interfaces(&mut self) -> Result<Vec<Interface>, LinkError> {
            match self.0 {}
        }

        /// Those of lanes.
        pub fn ours(&mut self) -> Result<Vec<Interface>, LinkError> {
            match self.0 {}
        }

        /// One by name.
        pub fn interface(&mut self, _name: &str) -> Result<Option<Interface>, LinkError> {
            match self.0 {}
        }

        /// Takes one away.
        pub fn delete(&mut self, _name: &str) -> Result<bool, LinkError> {
            match self.0 {}
        }

        /// Gives one an address.
        pub fn add_address(&mut self, _name: &str, _address: Ipv4Addr) -> Result<(), LinkError> {
            match self.0 {}
        }

        /// The addresses of one, with their prefix lengths.
        pub fn addresses(&mut self, _name: &str) -> Result<Vec<(Ipv4Addr, u8)>, LinkError> {
            match self.0 {}
        }

        /// Leads an address into one.
        pub fn add_route(&mut self, _name: &str, _destination: Ipv4Addr) -> Result<(), LinkError> {
            match self.0 {}
        }

        /// The destinations that lead into one, with their prefix lengths.
        pub fn routes(&mut self, _name: &str) -> Result<Vec<(Ipv4Addr, u8)>, LinkError> {
            match self.0 {}
        }

        /// How this machine reaches an address.
        pub fn reach(&mut self, _address: Ipv4Addr) -> Result<Option<Reach>, LinkError> {
            match self.0 {}
        }
    }
}
