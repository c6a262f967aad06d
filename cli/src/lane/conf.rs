//! A stock WireGuard configuration for one lane, as `wg-quick` and other clients read it.

use std::net::Ipv4Addr;

use thinlane_model::{Endpoint, PublicKey, Secret};
use zeroize::Zeroizing;

/// All that the file says.
pub struct Conf<'a> {
    /// What it is for, on the first line.
    pub title: &'a str,
    pub private: &'a Secret,
    pub address: Ipv4Addr,
    pub mtu: u16,
    pub peer: PublicKey,
    pub preshared: &'a Secret,
    pub allowed: Ipv4Addr,
    pub endpoint: &'a Endpoint,
}

/// Seconds between packets that keep a path through NAT open.
const KEEPALIVE: u16 = 25;

impl Conf<'_> {
    /// The file's text, wiped when dropped.
    pub fn render(&self) -> Zeroizing<String> {
        let title: String = self.title.chars().filter(|letter| !letter.is_control()).collect();
        Zeroizing::new(format!(
            "# {title}\n\
             [Interface]\n\
             PrivateKey = {}\n\
             Address = {}/32\n\
             MTU = {}\n\
             \n\
             [Peer]\n\
             PublicKey = {}\n\
             PresharedKey = {}\n\
             AllowedIPs = {}/32\n\
             Endpoint = {}\n\
             PersistentKeepalive = {KEEPALIVE}\n",
            *self.private.to_base64(),
            self.address,
            self.mtu,
            self.peer,
            *self.preshared.to_base64(),
            self.allowed,
            self.endpoint,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_exactly_what_a_stock_client_reads() {
        let text = Conf {
            title: "Thinlane ses_7k2m9q4x:\nPostUp = rm -rf /",
            private: &Secret::new([1; 32]),
            address: Ipv4Addr::new(198, 19, 0, 5),
            mtu: 1420,
            peer: PublicKey::new([2; 32]).expect("a key"),
            preshared: &Secret::new([3; 32]),
            allowed: Ipv4Addr::new(198, 18, 0, 9),
            endpoint: &"[2001:db8::1]:7443".parse().expect("an endpoint"),
        }
        .render();
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "[Interface]",
                "PrivateKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
                "Address = 198.19.0.5/32",
                "MTU = 1420",
                "[Peer]",
                "PublicKey = AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
                "PresharedKey = AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
                "AllowedIPs = 198.18.0.9/32",
                "Endpoint = [2001:db8::1]:7443",
                "PersistentKeepalive = 25",
            ]
        );
    }
}
