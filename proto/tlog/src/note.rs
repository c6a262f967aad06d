//! Signed notes and checkpoints, as C2SP `signed-note` and `tlog-checkpoint` describe them and as Go's
//! `golang.org/x/mod/sumdb/note` reads and writes them.
//!
//! A note is text, an empty line, and one line per signature. A checkpoint is a note whose text states how large
//! a log is and what its root is. Signatures by keys that the reader does not know are kept and ignored, which
//! is how witnesses and key changes work.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
pub use ed25519_dalek::SigningKey;
use ed25519_dalek::{Signer as _, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::tree::Hash;

/// Bytes of a note that are read at most.
pub const MAX_NOTE: usize = 64 * 1024;
/// Signatures of a note that are read at most.
pub const MAX_SIGNATURES: usize = 64;
/// The signature type byte of Ed25519 over the text.
const ED25519: u8 = 1;
/// What stands before every signature: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// Why a name, key, note or checkpoint is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("a key's name is not empty and has no space, control character or plus sign")]
    Name,
    #[error("a verifier key is written NAME+HASH+KEY, HASH fitting name and key, KEY an Ed25519 one in base 64")]
    Key,
    #[error("a note is at most {MAX_NOTE} bytes")]
    Size,
    #[error("a note is UTF-8 without control characters other than newline, and ends with a newline")]
    Text,
    #[error("a note ends with an empty line and 1 to {MAX_SIGNATURES} signature lines")]
    Signatures,
    #[error("a checkpoint's text is an origin, a size in decimal and a root in base 64, each on its line")]
    Checkpoint,
}

/// Why a note is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Malformed(#[from] NoteError),
    #[error("the signature of {name} is wrong")]
    Signature { name: String },
    #[error("it carries no signature of a known key")]
    Unsigned,
    #[error("it is of another log: its origin is {origin:?}")]
    Origin { origin: String },
}

/// A name and a public key: what one must know to believe a note. In text `NAME+HASH+KEY` (a "vkey").
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

/// A name and a private key.
#[derive(Clone)]
pub struct Signer {
    name: String,
    key: SigningKey,
}

/// One signature line.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// The name that the signer goes by.
    pub name: String,
    /// With the name it says which key and algorithm.
    pub id: [u8; 4],
    /// Whatever the algorithm makes; 64 bytes for Ed25519.
    pub bytes: Vec<u8>,
}

/// A text and its signatures, well formed but not necessarily believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// How large a log is and what its root is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Hash,
    extensions: Vec<String>,
}

/// A checkpoint that carries a right signature of the log's own key, and maybe others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

impl Verifier {
    /// Names a public key.
    pub fn new(name: &str, key: VerifyingKey) -> Result<Self, NoteError> {
        let name = key_name(name)?;
        let id = key_id(name, &key);
        Ok(Self { name: name.to_owned(), id, key })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of SHA-256(name || newline || type || key).
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// The Ed25519 public key.
    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }

    fn made(&self, signature: &Signature) -> bool {
        signature.name == self.name && signature.id == self.id
    }

    fn check(&self, text: &str, signature: &Signature) -> Result<(), VerifyError> {
        let wrong = || VerifyError::Signature { name: self.name.clone() };
        let bytes: &[u8; 64] = signature.bytes.as_slice().try_into().map_err(|_| wrong())?;
        // Strict: refuses keys and points of small order, for which one signature would fit many texts.
        self.key.verify_strict(text.as_bytes(), &ed25519_dalek::Signature::from_bytes(bytes)).map_err(|_| wrong())
    }
}

impl Signer {
    /// Names a private key; for a log the name is its origin.
    pub fn new(name: &str, key: SigningKey) -> Result<Self, NoteError> {
        Ok(Self { name: key_name(name)?.to_owned(), key })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public half.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(&self.name, self.key.verifying_key()).expect("the name was checked")
    }

    fn sign(&self, text: &str) -> Signature {
        let key = self.key.verifying_key();
        Signature {
            name: self.name.clone(),
            id: key_id(&self.name, &key),
            bytes: self.key.sign(text.as_bytes()).to_bytes().to_vec(),
        }
    }
}

impl Note {
    /// Signs a text, which must end with a newline.
    pub fn sign(text: &str, signer: &Signer) -> Result<Self, NoteError> {
        if text.len() > MAX_NOTE {
            return Err(NoteError::Size);
        }
        check_text(text)?;
        Ok(Self { text: text.to_owned(), signatures: vec![signer.sign(text)] })
    }

    /// Reads a note; the signatures are not checked yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::Size);
        }
        let whole = std::str::from_utf8(bytes).map_err(|_| NoteError::Text)?;
        check_text(whole)?;
        let empty_line = whole.rfind("\n\n").ok_or(NoteError::Signatures)?;
        let (text, rest) = (&whole[..=empty_line], &whole[empty_line + 2..]);
        let lines = rest.strip_suffix('\n').ok_or(NoteError::Signatures)?.split('\n');
        let signatures: Vec<Signature> =
            lines.take(MAX_SIGNATURES + 1).map(Signature::parse).collect::<Result<_, _>>()?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(NoteError::Signatures);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a signature; one of the same name and id is replaced.
    pub fn add(&mut self, signer: &Signer) -> Result<(), NoteError> {
        self.add_signature(signer.sign(&self.text))
    }

    /// Adds a signature that somebody else made over the same text; one of the same name and id is replaced.
    pub fn add_signature(&mut self, signature: Signature) -> Result<(), NoteError> {
        self.signatures.retain(|other| other.name != signature.name || other.id != signature.id);
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(NoteError::Signatures);
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Which of the `known` keys signed this note. One wrong signature of a known key, or no right one,
    /// and the note is not to be believed.
    pub fn verify<'a>(&self, known: &'a [Verifier]) -> Result<Vec<&'a Verifier>, VerifyError> {
        let mut signed_by: Vec<&Verifier> = Vec::new();
        for signature in &self.signatures {
            for verifier in known.iter().filter(|verifier| verifier.made(signature)) {
                verifier.check(&self.text, signature)?;
                if !signed_by.contains(&verifier) {
                    signed_by.push(verifier);
                }
            }
        }
        if signed_by.is_empty() { Err(VerifyError::Unsigned) } else { Ok(signed_by) }
    }
}

impl Signature {
    fn parse(line: &str) -> Result<Self, NoteError> {
        let rest = line.strip_prefix(DASH).ok_or(NoteError::Signatures)?;
        let (name, encoded) = rest.split_once(' ').ok_or(NoteError::Signatures)?;
        let decoded = BASE64.decode(encoded.as_bytes()).map_err(|_| NoteError::Signatures)?;
        let (id, bytes) = decoded.split_first_chunk::<4>().ok_or(NoteError::Signatures)?;
        if bytes.is_empty() {
            return Err(NoteError::Signatures);
        }
        Ok(Self { name: key_name(name)?.to_owned(), id: *id, bytes: bytes.to_vec() })
    }
}

impl Checkpoint {
    /// States that the log `origin` has `size` entries under `root`.
    pub fn new(origin: &str, size: u64, root: Hash) -> Result<Self, NoteError> {
        if origin.is_empty() || origin.chars().any(char::is_control) {
            return Err(NoteError::Checkpoint);
        }
        Ok(Self { origin: origin.to_owned(), size, root, extensions: Vec::new() })
    }

    /// The log's unique name.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Entries in the log.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn root(&self) -> Hash {
        self.root
    }

    /// Lines after the root, which nobody interprets.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, self.root.to_base64());
        self.extensions.iter().for_each(|line| text.extend([line, "\n"]));
        text
    }

    /// Reads what [`Checkpoint::text`] writes.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        check_text(text)?;
        let mut lines = text.strip_suffix('\n').ok_or(NoteError::Checkpoint)?.split('\n');
        let mut line = || lines.next().filter(|line| !line.is_empty()).ok_or(NoteError::Checkpoint);
        let (origin, size, root) = (line()?, line()?, line()?);
        let number: u64 = size.parse().map_err(|_| NoteError::Checkpoint)?;
        if number.to_string() != size {
            return Err(NoteError::Checkpoint);
        }
        let root = Hash::from_base64(root).map_err(|_| NoteError::Checkpoint)?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(NoteError::Checkpoint);
        }
        Ok(Self { extensions, ..Self::new(origin, number, root)? })
    }

    /// Signs it with the log's key, whose name must be the origin.
    pub fn sign(self, signer: &Signer) -> Result<SignedCheckpoint, NoteError> {
        if signer.name != self.origin {
            return Err(NoteError::Name);
        }
        let note = Note::sign(&self.text(), signer)?;
        Ok(SignedCheckpoint { checkpoint: self, note })
    }
}

impl SignedCheckpoint {
    /// Reads a checkpoint and believes it only if `log` is its origin and has signed it.
    pub fn open(bytes: &[u8], log: &Verifier) -> Result<Self, VerifyError> {
        let note = Note::parse(bytes)?;
        note.verify(std::slice::from_ref(log))?;
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin != log.name {
            return Err(VerifyError::Origin { origin: checkpoint.origin });
        }
        Ok(Self { checkpoint, note })
    }

    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note with all its signatures; its `Display` is what is stored and sent.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Adds a witness's signature over the same text.
    pub fn witness(&mut self, signer: &Signer) -> Result<(), NoteError> {
        self.note.add(signer)
    }

    /// Takes over the signatures of another copy of the same checkpoint; how many were new.
    pub fn merge(&mut self, other: &Note) -> Result<usize, NoteError> {
        if other.text != self.note.text {
            return Err(NoteError::Checkpoint);
        }
        let mut new = 0;
        for signature in &other.signatures {
            // One that is here already stays: another copy cannot replace the log's own by a wrong one.
            if !self.note.signatures.iter().any(|had| had.name == signature.name && had.id == signature.id) {
                self.note.add_signature(signature.clone())?;
                new += 1;
            }
        }
        Ok(new)
    }
}

fn key_name(name: &str) -> Result<&str, NoteError> {
    let bad = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '+';
    if name.is_empty() || name.contains(bad) { Err(NoteError::Name) } else { Ok(name) }
}

fn key_id(name: &str, key: &VerifyingKey) -> [u8; 4] {
    let hash = Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(key.as_bytes()).finalize();
    std::array::from_fn(|at| hash[at])
}

fn check_text(text: &str) -> Result<(), NoteError> {
    let bad = text.bytes().any(|byte| byte < 0x20 && byte != b'\n');
    if bad || !text.ends_with('\n') { Err(NoteError::Text) } else { Ok(()) }
}

impl fmt::Display for Verifier {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519];
        key.extend(self.key.as_bytes());
        write!(to, "{}+{}+{}", self.name, HEXLOWER.encode(&self.id), BASE64.encode(&key))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

impl FromStr for Verifier {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let mut part = || parts.next().ok_or(NoteError::Key);
        let (name, id, key) = (part()?, part()?, part()?);
        let decoded = BASE64.decode(key.as_bytes()).map_err(|_| NoteError::Key)?;
        let key: &[u8; 32] = match decoded.split_first() {
            Some((&ED25519, key)) => key.try_into().map_err(|_| NoteError::Key)?,
            _ => return Err(NoteError::Key),
        };
        let key = VerifyingKey::from_bytes(key).map_err(|_| NoteError::Key)?;
        let verifier = Self::new(name, key)?;
        if HEXLOWER.encode(&verifier.id) == id { Ok(verifier) } else { Err(NoteError::Key) }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Signer({})", self.name)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.id.to_vec();
        bytes.extend(&self.bytes);
        write!(to, "{DASH}{} {}", self.name, BASE64.encode(&bytes))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(to, "{signature}"))
    }
}

#[cfg(test)]
mod tests;
