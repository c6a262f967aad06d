//! The second factor: RFC 6238 with SHA-1, six digits, 30 s, one step early or late, each code once.

use thinlane_model::{Login, Wall};
use totp_rs::{Algorithm, Builder, Secret, Totp};

const STEP: u64 = 30;
/// Bytes of a secret, as RFC 4226 recommends.
const SECRET: usize = 20;

/// What a code is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Right, and this is its step: remember it.
    Right {
        step: u64,
    },
    /// It was right once; the next one comes in so many seconds.
    Used {
        next_in: u64,
    },
    Wrong,
}

/// A new secret, in base 32.
pub fn new_secret() -> anyhow::Result<String> {
    let random = crate::random::bytes::<SECRET>()?;
    Ok(data_encoding::BASE32_NOPAD.encode(&random))
}

/// Checks a code; codes of step `last` and older have been used.
pub fn check(secret: &str, code: &str, last: u64, now: Wall) -> Verdict {
    let code: String = code.chars().filter(|letter| !letter.is_whitespace()).take(7).collect();
    let time = u64::try_from(now.as_secs()).unwrap_or(0);
    let Some(totp) = build(secret, None) else { return Verdict::Wrong };
    match totp.check(&code, time) {
        Some(step) if step > last => Verdict::Right { step },
        // The code that fits next is the first one after the newest that was used.
        Some(_) => Verdict::Used { next_in: ((last + 1) * STEP).saturating_sub(time).clamp(1, 2 * STEP) },
        None => Verdict::Wrong,
    }
}

/// `otpauth://` for a QR code.
pub fn url(secret: &str, login: &Login) -> Option<String> {
    build(secret, Some(login))?.to_url().ok()
}

fn build(secret: &str, login: Option<&Login>) -> Option<Totp> {
    let secret = Secret::try_from_base32(secret).ok()?;
    let builder = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_skew(1)
        .with_step_duration(STEP)
        .with_secret(secret)
        .with_issuer(Some("Thinlane".to_owned()))
        .with_account_name(login.map_or("-", Login::as_str).replace(':', "_"));
    builder.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238's test secret "12345678901234567890"; its codes are the last six digits of appendix B.
    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    fn at(secs: i64) -> Wall {
        Wall::from_millis(secs * 1000)
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        for (time, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (2_000_000_000, "279037")]
        {
            assert_eq!(check(SECRET, code, 0, at(time)), Verdict::Right { step: time as u64 / 30 }, "{time}");
        }
    }

    #[test]
    fn a_code_is_good_once_one_step_early_or_late_and_no_longer() {
        for time in [29, 59, 89] {
            assert_eq!(check(SECRET, "287 082", 0, at(time)), Verdict::Right { step: 1 });
        }
        assert_eq!(check(SECRET, "287082", 0, at(120)), Verdict::Wrong);
        assert_eq!(check(SECRET, "287082", 1, at(59)), Verdict::Used { next_in: 1 });
        assert_eq!(check(SECRET, "287082", 2, at(59)), Verdict::Used { next_in: 31 });
        for code in ["", "28708", "2870820", "28708x", "９９９９９９"] {
            assert_eq!(check(SECRET, code, 0, at(59)), Verdict::Wrong, "{code}");
        }
    }

    #[test]
    fn the_qr_code_says_what_an_app_needs() {
        let secret = new_secret().expect("randomness");
        let url = url(&secret, &"alice@example".parse().expect("a login")).expect("a url");
        assert!(url.starts_with("otpauth://totp/Thinlane") && url.contains(&secret), "{url}");
        assert!(matches!(check(&secret, "000000", 0, at(59)), Verdict::Wrong | Verdict::Right { .. }));
    }
}
