//! Ways to break a promise on purpose: a model that finds none of them would prove nothing.

/// What is broken in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The gateway does not hear what a delta takes back.
    DeafToWithdrawals,
    /// The kernel keeps lanes for an hour longer than it was told.
    KernelKeepsLanes,
    /// The kernel says that a lane is closed and leaves it.
    KernelLies,
    /// The gateway does not notice that its channel is gone.
    LossUntold,
    /// The site's own switch is not connected.
    SwitchUntold,
    /// A reboot leaves the lanes where they were.
    RebootKeepsLanes,
    /// The kernel says that a lane is extended and does nothing.
    ExtensionLost,
    /// The controller forgets that a session's closing record must be acknowledged.
    NeverAcknowledged,
}

impl Sabotage {
    pub const ALL: [Sabotage; 8] = [
        Sabotage::DeafToWithdrawals,
        Sabotage::KernelKeepsLanes,
        Sabotage::KernelLies,
        Sabotage::LossUntold,
        Sabotage::SwitchUntold,
        Sabotage::RebootKeepsLanes,
        Sabotage::ExtensionLost,
        Sabotage::NeverAcknowledged,
    ];
}
