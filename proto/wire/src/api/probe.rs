//! A ticket to try the way to the relay.

use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use thinlane_model::{Secret, Span};

use super::Schema;
use crate::ProbeTicket;

/// `POST /probe`: what `doctor` needs to find out whether UDP reaches the relay.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProbeView {
    #[cfg_attr(feature = "openapi", schema(value_type = u32))]
    pub schema: Schema,
    /// 16 bytes, base 64: shown in each probe.
    pub ticket: String,
    /// 32 bytes, base 64: signs probes. Good for probes of the relay and for nothing else.
    pub secret: String,
    /// HOST:PORT.
    pub relay: String,
    /// How long the ticket is good.
    pub seconds: u64,
    /// The overlay addresses of assets and engineers, as CIDR.
    pub pools: Vec<String>,
}

/// Leaves the secret out.
impl fmt::Debug for ProbeView {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("ProbeView").field("relay", &self.relay).field("seconds", &self.seconds).finish_non_exhaustive()
    }
}

impl From<&ProbeTicket> for ProbeView {
    fn from(ticket: &ProbeTicket) -> Self {
        Self {
            schema: Schema,
            ticket: BASE64.encode(&ticket.ticket),
            secret: ticket.secret.to_base64().to_string(),
            relay: ticket.relay.to_string(),
            seconds: ticket.life.as_secs(),
            pools: ticket.pools.clone(),
        }
    }
}

impl ProbeView {
    /// The ticket; `None` where a field is not what it must be.
    pub fn ticket(&self) -> Option<ProbeTicket> {
        Some(ProbeTicket {
            ticket: BASE64.decode(self.ticket.as_bytes()).ok()?.try_into().ok()?,
            secret: Secret::from_base64(&self.secret).ok()?,
            relay: self.relay.parse().ok()?,
            life: Span::from_secs(self.seconds),
            pools: self.pools.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_reads_back_as_itself_and_is_not_printed() {
        let ticket = ProbeTicket {
            ticket: [1; 16],
            secret: Secret::new([0x41; 32]),
            relay: "192.0.2.1:7443".parse().expect("an endpoint"),
            life: Span::from_secs(600),
            pools: vec!["198.18.0.0/16".into()],
        };
        let view = ProbeView::from(&ticket);
        assert!(!format!("{view:?}").contains(&view.secret));
        assert_eq!(view.ticket(), Some(ticket));
        assert_eq!(ProbeView { secret: "x".into(), ..view }.ticket(), None);
    }
}
