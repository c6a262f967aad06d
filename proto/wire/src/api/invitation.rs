//! What a gateway needs to enrol, as one line of text: for a QR code, and for whoever reads it with a phone.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER_PERMISSIVE, HEXUPPER};
use thinlane_model::Endpoint;
use zeroize::Zeroizing;

/// How the line begins, in any case of letters.
const PREFIX: &str = "THINLANE://ENROL/";
/// The longest line that is read, in bytes.
const LONGEST: usize = 512;

/// Where a gateway trades its one-time code, whom it believes there, and the code.
///
/// Written `THINLANE://ENROL/HOST:PORT/FINGERPRINT/CODE`, in capitals: a QR code holds them, digits and these marks in
/// half the room of other letters (ISO/IEC 18004, alphanumeric mode), so that it fits a terminal of 24 lines.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    pub controller: Endpoint,
    /// SHA-256 of the controller's CA certificate.
    pub ca: [u8; 32],
    /// Case and dashes do not count in it.
    pub code: Zeroizing<String>,
}

/// Why a text is no invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an invitation is written {PREFIX}HOST:PORT/FINGERPRINT/CODE; `thinlane site token NAME --qr` draws it")]
pub struct InvitationError;

impl Invitation {
    /// Whether a text means to be one, whole or not.
    pub fn is_meant(text: &str) -> bool {
        text.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
    }

    /// The line; it holds the code.
    pub fn line(&self) -> Zeroizing<String> {
        let controller = self.controller.to_string().to_ascii_uppercase();
        let code = Zeroizing::new(self.code.to_ascii_uppercase());
        Zeroizing::new(format!("{PREFIX}{controller}/{}/{}", HEXUPPER.encode(&self.ca), code.as_str()))
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Invitation").field("controller", &self.controller).finish_non_exhaustive()
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;
    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let text = text.trim();
        if !Self::is_meant(text) || text.len() > LONGEST {
            return Err(InvitationError);
        }
        let mut parts = text[PREFIX.len()..].split('/');
        let (Some(controller), Some(ca), Some(code), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvitationError);
        };
        let typed = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        if code.is_empty() || !code.chars().all(typed) {
            return Err(InvitationError);
        }
        let ca = HEXLOWER_PERMISSIVE.decode(ca.as_bytes()).map_err(|_| InvitationError)?;
        Ok(Self {
            controller: controller.to_ascii_lowercase().parse().map_err(|_| InvitationError)?,
            ca: ca.try_into().map_err(|_| InvitationError)?,
            code: Zeroizing::new(code.to_ascii_lowercase()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation(controller: &str) -> Invitation {
        let code = Zeroizing::new("7k2m9-q4x0a-bcdef-ghjkm".to_owned());
        Invitation { controller: controller.parse().expect("an endpoint"), ca: [0xa7; 32], code }
    }

    #[test]
    fn the_line_reads_back_in_any_case_and_with_what_a_phone_adds() {
        for controller in ["controller.example.org:7443", "[2001:db8::1]:443", "192.0.2.7:7443"] {
            let made = invitation(controller);
            let line = made.line();
            for text in [line.to_string(), line.to_lowercase(), format!(" {}\r\n", line.as_str())] {
                assert_eq!(text.parse(), Ok(made.clone()), "{text}");
            }
        }
    }

    #[test]
    fn all_of_it_is_in_the_letters_that_a_qr_code_holds_in_half_the_room() {
        let line = invitation("controller.example.org:7443").line();
        assert!(line.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-.:/".contains(&byte)));
        // Version 5, level L: 37 modules.
        assert!(line.len() <= 154, "{}", line.len());
    }

    #[test]
    fn half_a_line_or_another_one_is_none() {
        let line = invitation("c.example:7443").line();
        for end in 0..line.len() - 23 {
            assert!(line[..end].parse::<Invitation>().is_err(), "{}", &line[..end]);
        }
        let wrong = [
            format!("{}/more", line.as_str()),
            line.replace("ENROL", "OTHER"),
            line.replace(":7443", ""),
            line.replace("A7A7", "X7A7"),
            format!("{}\"", line.as_str()),
            format!("{}{}", line.as_str(), "0".repeat(LONGEST)),
            "abcde-fghij".to_owned(),
            "ü".repeat(20),
        ];
        for text in wrong {
            assert_eq!(text.parse::<Invitation>(), Err(InvitationError), "{text}");
        }
        assert!(Invitation::is_meant("thinlane://enrol/") && !Invitation::is_meant("abcde-fghij"));
    }

    #[test]
    fn the_code_is_in_no_debug_text() {
        assert!(!format!("{:?}", invitation("c:1")).contains("7k2m9"));
    }
}
