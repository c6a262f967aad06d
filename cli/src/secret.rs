//! Secrets come from a file, the environment, one line of stdin or a prompt; never from the command line.

use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::str::FromStr;

use totp_rs::{Algorithm, Builder, Totp};
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure, Result, io};
use crate::home::read_bounded;
use crate::system::terminal::Hidden;

/// A secret in memory, wiped when dropped.
pub type SecretText = Zeroizing<String>;

const LARGEST: u64 = 16 * 1024;

/// Where a secret is read from: a file, or with `env://NAME` an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    Env(String),
}

impl FromStr for Source {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.strip_prefix("env://") {
            Some("") => Err("name the variable: env://NAME".to_owned()),
            Some(name) => Ok(Source::Env(name.to_owned())),
            None if text.is_empty() => Err("name a file, or env://NAME".to_owned()),
            None => Ok(Source::File(PathBuf::from(text))),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::File(path) => write!(to, "{}", path.display()),
            Source::Env(name) => write!(to, "env://{name}"),
        }
    }
}

impl Source {
    /// The secret without the white space around it; an empty one is an error.
    pub fn read(&self, what: &str) -> Result<SecretText> {
        let text = match self {
            Source::File(path) => {
                let found = read_bounded(path, LARGEST).map_err(|failure| failure.during(what))?;
                found.ok_or_else(|| {
                    Failure::failed(format!("{what}: {} does not exist", path.display()))
                        .next("give the path of the file that holds it, or env://NAME")
                })?
            }
            Source::Env(name) => std::env::var(name).map_err(|_| {
                Failure::failed(format!("{what}: the environment variable {name} is not set"))
                    .next(format!("export {name}=.., or give the path of a file"))
            })?,
        };
        let text = Zeroizing::new(text);
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(
                Failure::failed(format!("{what}: {self} is empty")).next("write the secret into it, on one line")
            );
        }
        Ok(Zeroizing::new(trimmed.to_owned()))
    }
}

/// One line of stdin, or a prompt without echo; without either the next step is `advice`.
pub fn password(stdin: bool, prompt: &str, advice: &str) -> Result<SecretText> {
    if stdin {
        return line_of(&mut std::io::stdin().lock());
    }
    ask_secret(prompt, advice)
}

/// Asks without echo.
pub fn ask_secret(prompt: &str, advice: &str) -> Result<SecretText> {
    refuse_unattended(prompt, advice)?;
    eprint!("{prompt}: ");
    let hidden = Hidden::begin().map_err(io(prompt))?;
    let read = type_in(&mut std::io::stdin().lock());
    drop(hidden);
    eprintln!();
    match read.map_err(io(prompt))? {
        Typed::Line(text) => Ok(text),
        Typed::Interrupted => Err(Failure::silent(Exit::Other(130))),
        Typed::Ended => {
            Err(Failure::usage(format!("{} is needed, and nothing was typed", prompt.to_lowercase())).next(advice))
        }
    }
}

/// What came of asking.
#[derive(Debug)]
enum Typed {
    Line(SecretText),
    Interrupted,
    Ended,
}

/// Reads a line byte by byte, with the keys that a line has: backspace, Ctrl-U, Ctrl-C, Ctrl-D.
fn type_in(from: &mut impl Read) -> std::io::Result<Typed> {
    let mut line = Zeroizing::new(Vec::with_capacity(256));
    let mut byte = [0];
    loop {
        match from.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match byte[0] {
            3 | 28 => return Ok(Typed::Interrupted),
            4 if line.is_empty() => return Ok(Typed::Ended),
            b'\r' | b'\n' => return text(&line).map(Typed::Line),
            21 => line.clear(),
            // A letter of UTF-8 goes whole.
            8 | 127 => while line.pop().is_some_and(|last| last & 0xc0 == 0x80) {},
            other if line.len() < LARGEST as usize => line.push(other),
            _ => {}
        }
    }
    if line.is_empty() { Ok(Typed::Ended) } else { text(&line).map(Typed::Line) }
}

fn text(line: &[u8]) -> std::io::Result<SecretText> {
    let text = std::str::from_utf8(line).map_err(|_| std::io::Error::other("that was no UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Asks with echo.
pub fn ask(prompt: &str, advice: &str) -> Result<String> {
    refuse_unattended(prompt, advice)?;
    eprint!("{prompt}: ");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(io(prompt))?;
    Ok(line.trim().to_owned())
}

/// Whether somebody is there to be asked.
pub fn attended() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn refuse_unattended(prompt: &str, advice: &str) -> Result<()> {
    match attended() {
        true => Ok(()),
        false => {
            Err(Failure::usage(format!("{} is needed, and there is no terminal to ask on", prompt.to_lowercase()))
                .next(advice))
        }
    }
}

fn line_of(from: &mut impl BufRead) -> Result<SecretText> {
    let mut line = Zeroizing::new(String::new());
    Read::take(from, LARGEST).read_line(&mut line).map_err(io("--password-stdin"))?;
    let text = line.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Failure::usage("--password-stdin: the line is empty"));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// A TOTP secret: SHA-1, 6 digits, 30 s (RFC 6238).
pub struct TotpSecret(Totp);

/// Seconds for which one code is shown.
pub const TOTP_STEP: u64 = 30;

impl TotpSecret {
    /// Reads base 32 (spaces, lower case and padding allowed) or an `otpauth://` address.
    pub fn parse(text: &str) -> Result<TotpSecret> {
        let odd = || Failure::failed("the TOTP secret is no base 32");
        let secret = match text.strip_prefix("otpauth://") {
            Some(rest) => rest
                .split(['?', '&'])
                .find_map(|part| part.strip_prefix("secret="))
                .ok_or_else(|| Failure::failed("the otpauth address names no secret"))?,
            None => text,
        };
        let letters: Zeroizing<String> =
            Zeroizing::new(secret.chars().filter(|letter| !" -=\t\r\n".contains(*letter)).collect());
        let bytes = Zeroizing::new(
            data_encoding::BASE32_NOPAD.decode(letters.to_ascii_uppercase().as_bytes()).map_err(|_| odd())?,
        );
        let totp = Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(6)
            .with_step_duration(TOTP_STEP)
            .with_secret(bytes.to_vec())
            .build()
            .map_err(|error| Failure::failed(format!("the TOTP secret: {error}")))?;
        Ok(TotpSecret(totp))
    }

    /// The code at a moment, in seconds since 1970.
    pub fn code(&self, unix: u64) -> String {
        self.0.generate(unix).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_line_has_the_keys_of_a_line() {
        let typed = |bytes: &[u8]| type_in(&mut &bytes[..]).expect("bytes can be read");
        for (bytes, line) in [
            (&b"secret\nrest"[..], "secret"),
            (b"sex\x7fcret\r", "secret"),
            ("gr\u{fc}\u{df}e\u{8}e\n".as_bytes(), "gr\u{fc}\u{df}e"),
            ("\u{df}\x7fsecret\n".as_bytes(), "secret"),
            (b"wrong\x15right\n", "right"),
            (b"no end", "no end"),
            (b"\n", ""),
        ] {
            let Typed::Line(text) = typed(bytes) else { panic!("{bytes:?}") };
            assert_eq!(text.as_str(), line);
        }
        assert!(matches!(typed(b"sec\x03ret\n"), Typed::Interrupted));
        assert!(matches!(typed(b"\x04"), Typed::Ended));
        assert!(matches!(typed(b""), Typed::Ended));
        assert!(type_in(&mut &b"\xff\n"[..]).is_err());
    }

    #[test]
    fn the_codes_are_those_of_rfc_6238() {
        // Appendix B, SHA-1, the last six of eight digits.
        let secret = TotpSecret::parse("GEZD GNBV-gy3tqojqgezdgnbvgy3tqojq").expect("a secret");
        for (unix, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
            assert_eq!(secret.code(unix), code);
        }
    }

    #[test]
    fn an_otpauth_address_gives_the_same_codes_as_its_secret() {
        let bare = TotpSecret::parse("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").expect("a secret");
        let uri = "otpauth://totp/Thinlane:alice?issuer=Thinlane&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&digits=6";
        assert_eq!(TotpSecret::parse(uri).expect("a secret").code(59), bare.code(59));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_repeated() {
        for text in ["", "0189", "otpauth://totp/x", "GEZD"] {
            let failure = TotpSecret::parse(text).err().expect("refused");
            assert!(text.is_empty() || !failure.message.contains(text), "{}", failure.message);
        }
    }

    #[test]
    fn one_line_is_the_password_with_its_spaces() {
        let mut input = " pass word \r\nnext\n".as_bytes();
        assert_eq!(line_of(&mut input).expect("a line").as_str(), " pass word ");
        assert!(line_of(&mut "\n".as_bytes()).is_err());
        assert!(line_of(&mut "".as_bytes()).is_err());
    }

    #[test]
    fn a_secret_comes_from_a_file_or_the_environment_and_never_empty() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("code");
        std::fs::write(&file, "abc\n").expect("written");
        let source: Source = file.to_str().expect("text").parse().expect("a source");
        assert_eq!(source.read("code").expect("read").as_str(), "abc");
        std::fs::write(&file, " \n").expect("written");
        assert!(source.read("code").is_err());
        assert_eq!("env://X".parse(), Ok(Source::Env("X".into())));
        assert!("env://".parse::<Source>().is_err());
        assert!(Source::Env("THINLANE_SURELY_NOT_SET".into()).read("code").is_err());
    }
}
